import type { SeriesOut } from "@/api";

/** New points on a curve that is already here. Pure.
 *
 * `fresh` must begin at or before the first step of `base`'s last bucket, so that this bucket is seen whole. Finer points are folded into `base`'s
 * tier: last value, exact extrema. Merging the same points again changes nothing. Null: the two cannot be merged, fetch everything.
 */
export function mergeCurve(base: SeriesOut, fresh: SeriesOut): SeriesOut | null {
  if (fresh.tier > base.tier) return null;
  const bucketOf = (step: number): number => Math.floor(step / base.tier);
  const first = fresh.steps[0];
  if (first === undefined) return base;
  const merged: SeriesOut = {
    ...base,
    steps: [...base.steps],
    values: [...base.values],
    low: [...base.low],
    high: [...base.high],
    at: [...base.at],
    non_finite: [...new Set([...base.non_finite, ...fresh.non_finite])].sort((a, b) => a - b),
  };
  for (let i = 0; i < fresh.steps.length; i += 1) {
    const step = fresh.steps[i] as number;
    const end = merged.steps.length - 1;
    const lastStep = merged.steps[end];
    if (lastStep !== undefined && bucketOf(step) < bucketOf(lastStep)) continue;
    if (lastStep === undefined || bucketOf(step) > bucketOf(lastStep)) {
      merged.steps.push(step);
      merged.values.push(fresh.values[i] ?? null);
      merged.low.push(fresh.low[i] ?? null);
      merged.high.push(fresh.high[i] ?? null);
      merged.at.push(fresh.at[i] ?? 0);
      continue;
    }
    merged.low[end] = extremum(Math.min, merged.low[end], fresh.low[i]);
    merged.high[end] = extremum(Math.max, merged.high[end], fresh.high[i]);
    if (step >= lastStep) {
      merged.steps[end] = step;
      merged.values[end] = fresh.values[i] ?? null;
      merged.at[end] = fresh.at[i] ?? 0;
    }
  }
  return merged;
}

/** First step of the last bucket: where the next request begins. */
export function resumeStep(curve: SeriesOut): number {
  const last = curve.steps.at(-1);
  return last === undefined ? 0 : Math.floor(last / curve.tier) * curve.tier;
}

/** One key's attempts as one curve: from the step where an attempt begins, it counts; what an earlier attempt did beyond that is kept apart. */
export function stitch(attempts: readonly SeriesOut[]): { curve: SeriesOut | null; abandoned: SeriesOut[]; boundaries: number[] } {
  const abandoned: SeriesOut[] = [];
  const boundaries: number[] = [];
  let curve: SeriesOut | null = null;
  for (const next of attempts) {
    const start = next.steps[0];
    if (start === undefined) continue;
    if (curve === null) {
      curve = next;
      continue;
    }
    const kept: number = curve.steps.filter((step) => step < start).length;
    if (kept < curve.steps.length) abandoned.push(slice(curve, Math.max(0, kept - 1), curve.steps.length));
    curve = concat(slice(curve, 0, kept), next);
    boundaries.push(start);
  }
  return { curve, abandoned, boundaries };
}

function slice(curve: SeriesOut, from: number, to: number): SeriesOut {
  const cut = <T>(column: T[]): T[] => column.slice(from, to);
  return { ...curve, steps: cut(curve.steps), values: cut(curve.values), low: cut(curve.low), high: cut(curve.high), at: cut(curve.at) };
}

function concat(a: SeriesOut, b: SeriesOut): SeriesOut {
  return {
    ...b,
    tier: Math.max(a.tier, b.tier),
    steps: [...a.steps, ...b.steps],
    values: [...a.values, ...b.values],
    low: [...a.low, ...b.low],
    high: [...a.high, ...b.high],
    at: [...a.at, ...b.at],
    non_finite: [...a.non_finite, ...b.non_finite],
  };
}

function extremum(pick: (...values: number[]) => number, a: number | null | undefined, b: number | null | undefined): number | null {
  if (a === null || a === undefined) return b ?? null;
  return b === null || b === undefined ? a : pick(a, b);
}
