/** Debiased exponential moving average, computed on the raw points: weight `smoothing` per step, so that a curve looks the same at every tier.
 *
 * `smoothing` 0 returns the values. Gaps (null) stay gaps and do not count. The divisor 1 − weight removes the pull of the empty start, as in Adam.
 */
export function debiasedEma(steps: readonly number[], values: readonly (number | null)[], smoothing: number): (number | null)[] {
  if (smoothing <= 0) return values.slice();
  const out: (number | null)[] = new Array(values.length).fill(null);
  let average = 0;
  let weight = 0;
  let before: number | null = null;
  const stride = typicalStride(steps);
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i];
    const step = steps[i];
    if (value === null || value === undefined || step === undefined) continue;
    const apart = before === null ? 1 : Math.max(1, (step - before) / stride);
    const keep = Math.pow(smoothing, apart);
    average = keep * average + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    before = step;
    out[i] = average / weight;
  }
  return out;
}

/** The commonest distance of two points, so that a metric logged every 100 steps is smoothed over points, not over holes. */
function typicalStride(steps: readonly number[]): number {
  if (steps.length < 2) return 1;
  const gaps = steps.slice(1, 65).map((step, i) => step - (steps[i] ?? 0)).sort((a, b) => a - b);
  return Math.max(1, gaps[Math.floor(gaps.length / 2)] ?? 1);
}
