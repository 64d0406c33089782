import type uPlot from "uplot";

import { resolveColor } from "@/lib/theme";

import type { Line } from "./model";

export type Mark = { readonly value: number; readonly label: string };
/** A share of 1 with its interval, on a scale of its own from 0 % at the bottom to 100 % at the top; points of one `group` are joined. */
export type SharePoint = { readonly x: number; readonly share: number; readonly low: number | null; readonly high: number | null; readonly color: string; readonly group: string };
export type Boundary = { readonly x: number; readonly label: string };

/** Drawn below the lines: bands of exact extrema, raw values behind a smoothed line, thresholds, attempt boundaries, broken values. */
export function drawUnderlay(u: uPlot, lines: readonly Line[], marks: readonly Mark[], boundaries: readonly Boundary[], isLog: boolean): void {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const boundary of boundaries) drawBoundary(u, boundary);
  for (const mark of marks) drawMark(u, mark);
  for (const line of lines) {
    drawBand(u, line, isLog);
    if (line.raw) drawRaw(u, line, isLog);
    drawBroken(u, line);
  }
  ctx.restore();
}

function drawBand(u: uPlot, line: Line, isLog: boolean): void {
  const { ctx } = u;
  const visible = (v: number | null | undefined): v is number => v !== null && v !== undefined && (!isLog || v > 0);
  ctx.fillStyle = resolveColor(line.color);
  ctx.globalAlpha = line.isAbandoned ? 0.08 : 0.16;
  let start = 0;
  while (start < line.x.length) {
    while (start < line.x.length && !(visible(line.low[start]) && visible(line.high[start]))) start += 1;
    let end = start;
    while (end < line.x.length && visible(line.low[end]) && visible(line.high[end])) end += 1;
    if (end - start > 1) {
      ctx.beginPath();
      for (let i = start; i < end; i += 1) ctx.lineTo(u.valToPos(line.x[i] as number, "x", true), u.valToPos(line.high[i] as number, "y", true));
      for (let i = end - 1; i >= start; i -= 1) ctx.lineTo(u.valToPos(line.x[i] as number, "x", true), u.valToPos(line.low[i] as number, "y", true));
      ctx.fill();
    }
    start = end;
  }
  ctx.globalAlpha = 1;
}

function drawRaw(u: uPlot, line: Line, isLog: boolean): void {
  const { ctx } = u;
  ctx.strokeStyle = resolveColor(line.color);
  ctx.globalAlpha = 0.28;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([]);
  ctx.beginPath();
  let isOpen = false;
  for (let i = 0; i < line.x.length; i += 1) {
    const value = line.raw?.[i];
    if (value === null || value === undefined || (isLog && value <= 0)) {
      isOpen = false;
      continue;
    }
    const [x, y] = [u.valToPos(line.x[i] as number, "x", true), u.valToPos(value, "y", true)];
    if (isOpen) ctx.lineTo(x, y);
    else ctx.moveTo(x, y);
    isOpen = true;
  }
  ctx.stroke();
  ctx.globalAlpha = 1;
}

function drawMark(u: uPlot, mark: Mark): void {
  const { ctx, bbox } = u;
  const { min, max } = u.scales.y ?? {};
  if (min === undefined || max === undefined || min === null || max === null || mark.value < min || mark.value > max) return;
  const y = Math.round(u.valToPos(mark.value, "y", true));
  ctx.strokeStyle = ctx.fillStyle = resolveColor("var(--bad)");
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([5 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  label(ctx, mark.label, bbox.left + 4 * devicePixelRatio, y - 4 * devicePixelRatio);
}

function drawBoundary(u: uPlot, boundary: Boundary): void {
  const { ctx, bbox } = u;
  const x = Math.round(u.valToPos(boundary.x, "x", true));
  ctx.strokeStyle = ctx.fillStyle = resolveColor("var(--faint)");
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  label(ctx, boundary.label, x + 4 * devicePixelRatio, bbox.top + 11 * devicePixelRatio);
}

/** A triangle at the top edge: nobody overlooks a NaN. */
function drawBroken(u: uPlot, line: Line): void {
  const { ctx, bbox } = u;
  const size = 4 * devicePixelRatio;
  ctx.fillStyle = resolveColor("var(--bad)");
  for (const at of line.broken) {
    const x = u.valToPos(at, "x", true);
    ctx.beginPath();
    ctx.moveTo(x - size, bbox.top);
    ctx.lineTo(x + size, bbox.top);
    ctx.lineTo(x, bbox.top + 1.6 * size);
    ctx.fill();
  }
}

function label(ctx: CanvasRenderingContext2D, text: string, x: number, y: number): void {
  ctx.setLineDash([]);
  ctx.font = `${10 * devicePixelRatio}px "Geist Variable", sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "alphabetic";
  ctx.fillText(text, x, y);
}
