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
    interval: fresh.interval,
    steps: [...base.steps],
    values: [...base.values],
    low: [...base.low],
    high: [...base.high],
    means: [...base.means],
    at: [...base.at],
    non_finite: [...new Set([...base.non_finite, ...fresh.non_finite])].sort((a, b) => a - b),
  };
  let folded = 0;
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
      merged.means.push(fresh.means[i] ?? null);
      folded = Number(merged.means.at(-1) !== null);
      merged.at.push(fresh.at[i] ?? 0);
      continue;
    }
    // The last bucket is seen whole: its mean is made anew.
    const mean = fresh.means[i] ?? null;
    if (mean !== null) {
      merged.means[end] = folded === 0 ? mean : ((merged.means[end] ?? mean) * folded + mean) / (folded + 1);
      folded += 1;
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

/** Exact points where somebody looks closely, with the whole curve's buckets before and after them: smoothing warms up on what came before. */
export function spliced(whole: readonly SeriesOut[], exact: readonly SeriesOut[]): SeriesOut[] {
  return whole.map((coarse) => {
    const fine = exact.find((curve) => curve.attempt_id === coarse.attempt_id && curve.key === coarse.key);
    const [first, last] = [fine?.steps[0], fine?.steps.at(-1)];
    if (!fine || first === undefined || last === undefined || fine.tier >= coarse.tier) return coarse;
    const before = coarse.steps.filter((step) => step < first).length;
    const after = coarse.steps.findIndex((step) => Math.floor(step / coarse.tier) * coarse.tier > last);
    const inside = { ...fine, tier: coarse.tier, interval: coarse.interval };
    const head = concat(slice(coarse, 0, before, -Infinity, first), inside);
    return after < 0 ? head : concat(head, slice(coarse, after, coarse.steps.length, last + 1, Infinity));
  });
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
    if (kept < curve.steps.length) abandoned.push(slice(curve, Math.max(0, kept - 1), curve.steps.length, start, Infinity));
    curve = concat(slice(curve, 0, kept, -Infinity, start), next);
    boundaries.push(start);
  }
  return { curve, abandoned, boundaries };
}

/** Points `from` to `to`, and what was not finite from step `first` to before `end`. */
function slice(curve: SeriesOut, from: number, to: number, first: number, end: number): SeriesOut {
  const cut = <T>(column: T[]): T[] => column.slice(from, to);
  return {
    ...curve,
    steps: cut(curve.steps),
    values: cut(curve.values),
    low: cut(curve.low),
    high: cut(curve.high),
    means: cut(curve.means),
    at: cut(curve.at),
    non_finite: curve.non_finite.filter((step) => step >= first && step < end),
  };
}

function concat(a: SeriesOut, b: SeriesOut): SeriesOut {
  return {
    ...b,
    tier: Math.max(a.tier, b.tier),
    steps: [...a.steps, ...b.steps],
    values: [...a.values, ...b.values],
    low: [...a.low, ...b.low],
    high: [...a.high, ...b.high],
    means: [...a.means, ...b.means],
    at: [...a.at, ...b.at],
    non_finite: [...a.non_finite, ...b.non_finite],
  };
}

function extremum(pick: (...values: number[]) => number, a: number | null | undefined, b: number | null | undefined): number | null {
  if (a === null || a === undefined) return b ?? null;
  return b === null || b === undefined ? a : pick(a, b);
}
