import { describe, expect, it } from "vitest";

import { debiasedEma } from "./ema";

const every = (steps: number[], values: (number | null)[], interval = 1, firstSpan = interval) => ({ steps, values, interval, firstSpan });

describe("debiasedEma", () => {
  it("returns the raw values without smoothing", () => {
    expect(debiasedEma(every([0, 1, 2], [3, null, 5]), 0)).toEqual([3, null, 5]);
  });
  it("starts at the first value instead of at zero", () => {
    expect(debiasedEma(every([0, 1], [4, 4]), 0.99)[0]).toBeCloseTo(4, 12);
  });
  it("keeps a constant constant", () => {
    for (const value of debiasedEma(every([0, 1, 2, 3, 4], [7, 7, 7, 7, 7]), 0.9)) expect(value).toBeCloseTo(7, 12);
  });
  it("follows the textbook recursion divided by its weight", () => {
    const [first, second] = debiasedEma(every([0, 1], [1, 3]), 0.5);
    expect(first).toBeCloseTo(1, 12);
    expect(second).toBeCloseTo((0.5 * 0.5 * 1 + 0.5 * 3) / 0.75, 12);
  });
  it("leaves gaps and does not count them", () => {
    expect(debiasedEma(every([0, 1, 2], [2, null, 2]), 0.9)).toEqual([2, null, 2].map((v) => (v === null ? null : expect.closeTo(v, 9))));
  });
  it("smooths a metric that is logged every 100 steps as one that is logged at each", () => {
    const values = [5, 1, 4, 2, 8];
    expect(debiasedEma(every([0, 100, 200, 300, 400], values, 100), 0.8)).toEqual(debiasedEma(every([0, 1, 2, 3, 4], values), 0.8));
  });
});

/** Numbers of a seed. */
function dice(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("smoothing at every tier", () => {
  const COUNT = 4096;
  for (const seed of [1, 2, 3, 4, 5]) {
    const roll = dice(seed);
    const interval = 1 + Math.floor(roll() * 3);
    const steps = Array.from({ length: COUNT }, (_, i) => i * interval);
    const values = steps.map((_, i) => 8 * Math.exp(-i / 700) + roll() + (roll() < 0.005 ? 20 : 0));
    const bucketed = (tier: number) => {
      const members = new Map<number, number[]>();
      steps.forEach((step, i) => members.set(Math.floor(step / tier), [...(members.get(Math.floor(step / tier)) ?? []), i]));
      const groups = [...members.values()];
      return every(
        groups.map((group) => steps[group.at(-1) as number] as number),
        groups.map((group) => group.reduce((sum, i) => sum + (values[i] as number), 0) / group.length),
        interval,
        tier,
      );
    };
    for (const smoothing of [0.9, 0.97, 0.99]) {
      const exact = debiasedEma(every(steps, values, interval), smoothing);
      for (const tier of [4, 16, 64]) {
        it(`of ${tier} steps agrees with the points, seed ${seed}, weight ${smoothing}`, () => {
          const coarse = bucketed(tier);
          const smoothed = debiasedEma(coarse, smoothing);
          // Both weigh a bucket as a whole alike; only inside of it the bucket cannot tell its points apart. So the two never differ by more
          // than one bucket's share of the weight times how far values lie apart, and on average by far less.
          const share = 1 - smoothing ** (tier / interval + 1);
          const apart = coarse.steps.map((step, i) => Math.abs((smoothed[i] as number) - (exact[steps.indexOf(step)] as number)));
          expect(Math.max(...apart)).toBeLessThan(share * 29);
          expect(apart.reduce((a, b) => a + b, 0) / apart.length).toBeLessThan(0.5 * share + 0.01);
        });
      }
      it(`does not change where a zoom begins, seed ${seed}, weight ${smoothing}`, () => {
        const coarse = bucketed(16);
        const from = coarse.steps.findIndex((step) => step > steps.length / 2);
        const start = (coarse.steps[from - 1] as number) + 1;
        const first = steps.findIndex((step) => step >= start);
        const spliced = every([...coarse.steps.slice(0, from), ...steps.slice(first)], [...coarse.values.slice(0, from), ...values.slice(first)], interval, 16);
        const smoothed = debiasedEma(spliced, smoothing).slice(from);
        const share = 1 - smoothing ** (16 / interval + 1);
        exact.slice(first).forEach((value, i) => expect(Math.abs((smoothed[i] as number) - (value as number))).toBeLessThan(share * 29));
        const late = exact.length - first - 1;
        if (smoothing < 0.99) expect(smoothed[late]).toBeCloseTo(exact.at(-1) as number, 6);
      });
    }
  }
});
