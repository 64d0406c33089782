import { describe, expect, it } from "vitest";

import { debiasedEma } from "./ema";

describe("debiasedEma", () => {
  it("returns the raw values without smoothing", () => {
    expect(debiasedEma([0, 1, 2], [3, null, 5], 0)).toEqual([3, null, 5]);
  });
  it("starts at the first value instead of at zero", () => {
    expect(debiasedEma([0, 1], [4, 4], 0.99)[0]).toBeCloseTo(4, 12);
  });
  it("keeps a constant constant", () => {
    for (const value of debiasedEma([0, 1, 2, 3, 4], [7, 7, 7, 7, 7], 0.9)) expect(value).toBeCloseTo(7, 12);
  });
  it("follows the textbook recursion divided by its weight", () => {
    const [first, second] = debiasedEma([0, 1], [1, 3], 0.5);
    expect(first).toBeCloseTo(1, 12);
    expect(second).toBeCloseTo((0.5 * 0.5 * 1 + 0.5 * 3) / 0.75, 12);
  });
  it("leaves gaps and does not count them", () => {
    expect(debiasedEma([0, 1, 2], [2, null, 2], 0.9)).toEqual([2, null, 2].map((v) => (v === null ? null : expect.closeTo(v, 9))));
  });
  it("treats a jump in steps as that many points", () => {
    const near = debiasedEma([0, 1, 2], [0, 0, 1], 0.5)[2] ?? 0;
    const far = debiasedEma([0, 1, 2, 3, 12], [0, 0, 0, 0, 1], 0.5)[4] ?? 0;
    expect(far).toBeGreaterThan(near);
  });
});
