import "uplot/dist/uPlot.min.css";

import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { figure } from "@/lib/format";
import { resolveColor, useIsDark } from "@/lib/theme";

import { align, extent, type Line, type Range, yRange } from "./model";
import { drawSharePoints, SCALE_PIXELS } from "./share-points";
import { type Boundary, drawUnderlay, type Mark, type SharePoint } from "./underlay";

export type SeriesProps = {
  lines: readonly Line[];
  /** For people who do not see the canvas. */
  label: string;
  isLog?: boolean;
  /** The y axis leaves outliers out. */
  isRobust?: boolean;
  marks?: readonly Mark[];
  boundaries?: readonly Boundary[];
  points?: readonly SharePoint[];
  formatX: (x: number) => string;
  /** `figure`, unless told otherwise. */
  formatY?: (y: number) => string;
  /** Null: everything. */
  range: Range | null;
  onRange: (range: Range | null) => void;
  /** x under the pointer, in this chart or in another of the same group. */
  onCursor: (x: number | null) => void;
  /** Charts with the same key share the cursor. */
  syncKey: string;
  height: number;
};

const FONT = '11px "Geist Variable", sans-serif';
const MIN_ZOOM_PIXELS = 6;

/** Curves on a canvas. The plot is made once for a set of lines; new points only move its data, so that zoom and cursor stay. */
export function Series(props: SeriesProps) {
  const host = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  const plot = useRef<uPlot | null>(null);
  const isDark = useIsDark();
  const shape = props.lines.map((line) => `${line.id} ${line.color} ${line.dash.join()} ${line.isAbandoned}`).join("\n");
  const hasPoints = (props.points?.length ?? 0) > 0;
  const { isLog = false, isRobust = false, syncKey, height } = props;

  useEffect(() => {
    latest.current = props;
  });

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const u = new uPlot(options(latest, element.clientWidth, height, isLog, syncKey), data(latest.current.lines), element);
    plot.current = u;
    const resize = new ResizeObserver(() => u.setSize({ width: element.clientWidth, height }));
    resize.observe(element);
    return () => {
      resize.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [shape, isLog, syncKey, height, isDark, hasPoints]);

  const [from, to] = props.range ?? [null, null];
  useEffect(() => {
    plot.current?.setData(data(latest.current.lines), true);
  }, [props.lines, props.marks, props.boundaries, props.points, from, to, shape, isLog, isRobust, isDark]);

  return <div ref={host} role="img" aria-label={props.label} className="series" style={{ height }} />;
}

type Latest = { readonly current: SeriesProps };

function options(latest: Latest, width: number, height: number, isLog: boolean, syncKey: string): uPlot.Options {
  const seen = (): Range => latest.current.range ?? extent(latest.current.lines);
  const axis: uPlot.Axis = {
    font: FONT,
    stroke: resolveColor("var(--faint)"),
    grid: { stroke: resolveColor("var(--line)"), width: 1 },
    ticks: { show: false },
    gap: 6,
  };
  return {
    width,
    height,
    padding: [8, latest.current.points?.length ? SCALE_PIXELS : 10, 0, 0],
    legend: { show: false },
    cursor: {
      drag: { x: true, y: false, setScale: false },
      points: { size: 6, width: 1.5, fill: () => resolveColor("var(--surface)") },
      sync: { key: syncKey, scales: ["x", null] },
      bind: {
        dblclick: () => () => {
          latest.current.onRange(null);
          return null;
        },
      },
    },
    scales: {
      x: { time: false, range: () => [...seen()] },
      y: {
        distr: isLog ? 3 : 1,
        range: () => yRange(latest.current.lines, seen(), isLog, latest.current.marks?.map((mark) => mark.value), latest.current.isRobust),
      },
    },
    axes: [
      { ...axis, space: 70, size: 26, values: (_, splits) => splits.map((x) => latest.current.formatX(x)) },
      { ...axis, space: 34, size: 50, values: (_, splits) => splits.map((y) => (y === null ? "" : (latest.current.formatY ?? figure)(y))) },
    ],
    series: [{}, ...latest.current.lines.map((line) => strokeOf(line, latest.current.lines.length))],
    hooks: {
      drawAxes: [(u) => drawUnderlay(u, latest.current.lines, latest.current.marks ?? [], latest.current.boundaries ?? [], isLog)],
      draw: [(u) => drawSharePoints(u, latest.current.points ?? [])],
      setSelect: [(u) => select(u, latest)],
      setCursor: [(u) => latest.current.onCursor(hovered(u))],
    },
  };
}

const CROWD = 3;

function strokeOf(line: Line, count: number): uPlot.Series {
  return {
    stroke: resolveColor(line.color),
    alpha: line.isAbandoned ? 0.4 : 1,
    width: line.isAbandoned || count > CROWD ? 1.1 : 1.6,
    dash: [...(line.isAbandoned ? [2, 3] : line.dash)],
    points: { show: line.x.length === 1, size: 5 },
  };
}

function select(u: uPlot, latest: Latest): void {
  const { left, width } = u.select;
  if (width < MIN_ZOOM_PIXELS) return;
  latest.current.onRange([u.posToVal(left, "x"), u.posToVal(left + width, "x")]);
  u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
}

function hovered(u: uPlot): number | null {
  const { left } = u.cursor;
  return left === undefined || left === null || left < 0 ? null : u.posToVal(left, "x");
}

function data(lines: readonly Line[]): uPlot.AlignedData {
  return align(lines) as uPlot.AlignedData;
}
