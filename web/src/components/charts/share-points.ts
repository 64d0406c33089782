import type uPlot from "uplot";

import { resolveColor } from "@/lib/theme";

import type { SharePoint } from "./underlay";

/** Room for the scale's words at the right edge. */
export const SCALE_PIXELS = 48;
const ASIDE_PIXELS = 4;
const TICKS = [0, 0.5, 1];

/** Drawn above the lines: shares with their intervals, joined by group, and their scale at the right edge. */
export function drawSharePoints(u: uPlot, points: readonly SharePoint[]): void {
  if (points.length === 0) return;
  const { ctx, bbox } = u;
  const heightOf = (share: number): number => bbox.top + (1 - share) * bbox.height;
  ctx.save();
  drawScale(u, heightOf);
  ctx.beginPath();
  // Half a point may stand out at 0 % and 100 %.
  ctx.rect(bbox.left, bbox.top - 5 * devicePixelRatio, bbox.width + 12 * devicePixelRatio, bbox.height + 10 * devicePixelRatio);
  ctx.clip();
  const groups = [...new Set(points.map((point) => point.group))];
  const last = new Map<string, readonly [number, number]>();
  for (const { x, share, low, high, color, group } of points) {
    // Side by side: intervals of one checkpoint would hide each other.
    const aside = (groups.indexOf(group) - (groups.length - 1) / 2) * ASIDE_PIXELS * devicePixelRatio;
    const [left, top] = [u.valToPos(x, "x", true) + aside, heightOf(share)];
    ctx.strokeStyle = ctx.fillStyle = resolveColor(color);
    const before = last.get(group);
    ctx.lineWidth = devicePixelRatio;
    if (before) {
      ctx.globalAlpha = 0.6;
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      line(ctx, before, [left, top]);
    }
    ctx.globalAlpha = 1;
    ctx.setLineDash([]);
    if (low !== null && high !== null) line(ctx, [left, heightOf(low)], [left, heightOf(high)]);
    ctx.beginPath();
    ctx.arc(left, top, 3.5 * devicePixelRatio, 0, 2 * Math.PI);
    ctx.fill();
    last.set(group, [left, top]);
  }
  ctx.restore();
}

function line(ctx: CanvasRenderingContext2D, from: readonly [number, number], to: readonly [number, number]): void {
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
}

function drawScale(u: uPlot, heightOf: (share: number) => number): void {
  const { ctx, bbox } = u;
  ctx.fillStyle = resolveColor("var(--faint)");
  ctx.font = `${11 * devicePixelRatio}px "Geist Variable", sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  for (const share of TICKS) ctx.fillText(`${100 * share} %`, bbox.left + bbox.width + 14 * devicePixelRatio, heightOf(share));
}
