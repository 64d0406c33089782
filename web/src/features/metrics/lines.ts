import type { SeriesOut } from "@/api";
import type { XAxis } from "@/app/search";
import type { Line } from "@/components/charts/model";
import type { Boundary } from "@/components/charts/underlay";
import { debiasedEma } from "@/lib/ema";

import { stitch } from "./merge";
import type { Stroke } from "./palette";

/** Where the points of a curve are on the x axis. */
export type Scale = { readonly axis: XAxis; readonly tokens: SeriesOut | null; readonly startSeconds: number };

export type Source = { readonly id: string; readonly label: string; readonly stroke: Stroke; readonly curves: readonly SeriesOut[] };

/** What the chart draws: one line a source, its given-up attempts behind it, and where attempts begin. Pure. */
export function linesOf(sources: readonly Source[], smoothing: number, scaleOf: (source: Source) => Scale): { lines: Line[]; boundaries: Boundary[] } {
  const lines: Line[] = [];
  const boundaries = new Map<number, Boundary>();
  for (const source of sources) {
    const { curve, abandoned, boundaries: starts } = stitch(source.curves);
    if (!curve) continue;
    const scale = scaleOf(source);
    abandoned.forEach((part, i) => lines.push({ ...lineOf(source, part, 0, scale), id: `${source.id} given up ${i}`, isAbandoned: true }));
    const line = lineOf(source, curve, smoothing, scale);
    lines.push(line);
    starts.forEach((step, i) => {
      const x = line.x[curve.steps.indexOf(step)];
      if (x !== undefined) boundaries.set(x, { x, label: `attempt ${i + 2}` });
    });
  }
  return { lines, boundaries: [...boundaries.values()] };
}

function lineOf(source: Source, curve: SeriesOut, smoothing: number, scale: Scale): Line {
  const x = positions(curve, scale);
  const order = isAscending(x) ? null : x.map((_, i) => i).sort((a, b) => (x[a] as number) - (x[b] as number));
  const arrange = <T>(column: readonly T[]): T[] => (order ? order.map((i) => column[i] as T) : (column as T[]));
  const first = curve.steps[0] ?? 0;
  const firstSpan = first - Math.floor(first / curve.tier) * curve.tier + curve.interval;
  const y = smoothing > 0 ? debiasedEma({ steps: curve.steps, values: curve.means, interval: curve.interval, firstSpan }, smoothing) : curve.values;
  return {
    id: source.id,
    label: source.label,
    color: source.stroke.color,
    dash: source.stroke.dash,
    x: arrange(x),
    y: arrange(y),
    low: arrange(curve.low),
    high: arrange(curve.high),
    raw: smoothing > 0 ? arrange(curve.values) : null,
    // A bucket hides its steps, so each broken one is placed between the points around it.
    broken: scale.axis === "step" ? curve.non_finite : curve.non_finite.map((step) => interpolate(curve.steps, x, step)),
    isAbandoned: false,
  };
}

function positions(curve: SeriesOut, scale: Scale): number[] {
  if (scale.axis === "time") return curve.at.map((at) => at - scale.startSeconds);
  if (scale.axis === "tokens" && scale.tokens) return curve.steps.map((step) => interpolate(scale.tokens?.steps ?? [], scale.tokens?.values ?? [], step));
  return curve.steps;
}

/** Where a step of a curve is on the x axis, whether it has a point there or not. */
export const placeOf = (step: number, curve: SeriesOut, scale: Scale): number => (scale.axis === "step" ? step : interpolate(curve.steps, positions(curve, scale), step));

/** Value at `x` of a rising polyline; beyond its ends it goes on at the mean slope. */
export function interpolate(xs: readonly number[], ys: readonly (number | null)[], x: number): number {
  const last = xs.length - 1;
  if (last < 0) return x;
  const [x0, xn, y0, yn] = [xs[0] as number, xs[last] as number, ys[0] ?? 0, ys[last] ?? 0];
  if (x <= x0 || x >= xn) {
    const slope = xn > x0 ? (yn - y0) / (xn - x0) : 0;
    return x <= x0 ? y0 + (x - x0) * slope : yn + (x - xn) * slope;
  }
  let [low, high] = [0, last];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((xs[middle] as number) <= x) low = middle;
    else high = middle;
  }
  const [xa, xb] = [xs[low] as number, xs[high] as number];
  const [ya, yb] = [ys[low] ?? 0, ys[high] ?? 0];
  return xb > xa ? ya + ((x - xa) / (xb - xa)) * (yb - ya) : yb;
}

/** The steps behind a zoom in other units, with room at both ends, from where one of the curve's buckets begins: what to fetch exactly. */
export function stepsOf(curve: SeriesOut | null, scale: Scale, range: readonly [number, number] | null): [number, number] | null {
  if (!range) return null;
  const tier = curve?.tier ?? 1;
  const begin = (step: number): number => Math.max(0, Math.floor((Math.floor(step) - 1) / tier) * tier);
  if (scale.axis === "step") return [begin(range[0]), Math.ceil(range[1]) + 1];
  if (!curve || curve.steps.length === 0) return null;
  const xs = positions(curve, scale);
  return [begin(interpolate(xs, curve.steps, range[0])), Math.ceil(interpolate(xs, curve.steps, range[1])) + 1];
}

const isAscending = (xs: readonly number[]): boolean => xs.every((x, i) => i === 0 || x >= (xs[i - 1] as number));
