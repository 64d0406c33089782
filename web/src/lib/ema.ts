/** What is averaged: `values` at `steps`, each the mean of everything since the one before. */
export type Averaged = {
  readonly steps: readonly number[];
  readonly values: readonly (number | null)[];
  /** Steps between two raw points: `smoothing` is the weight that is left after one of them. */
  readonly interval: number;
  /** Steps that the first value stands for. */
  readonly firstSpan: number;
};

/** Debiased exponential moving average over steps. A value that stands for n raw points weighs as they would together, so that a curve is smoothed
 * alike whether it comes point by point or in buckets, from the start or from the middle.
 *
 * `smoothing` 0 returns the values. Gaps (null) stay gaps and do not count. The divisor removes the pull of the empty start, as in Adam.
 */
export function debiasedEma({ steps, values, interval, firstSpan }: Averaged, smoothing: number): (number | null)[] {
  if (smoothing <= 0) return values.slice();
  const out: (number | null)[] = new Array(values.length).fill(null);
  let average = 0;
  let weight = 0;
  let before: number | null = null;
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    const step = steps[i];
    if (step === undefined) continue;
    const points = Math.max(1, (before === null ? firstSpan : step - before) / interval);
    before = step;
    if (value === null || value === undefined) continue;
    const keep = Math.pow(smoothing, points);
    average = keep * average + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    out[i] = average / weight;
  }
  return out;
}
