import { describe, expect, it } from "vitest";

import type { SeriesOut } from "@/api";

import { mergeCurve, resumeStep, spliced, stitch } from "./merge";

const curve = (steps: number[], values: (number | null)[] = steps, more: Partial<SeriesOut> = {}): SeriesOut => ({
  attempt_id: "a-1", stage_id: "s", key: "train/loss", tier: 1, interval: 1, steps, values, low: values, high: values, means: values, at: steps, non_finite: [], ...more,
});

describe("mergeCurve", () => {
  it("appends new points", () => {
    expect(mergeCurve(curve([0, 1, 2]), curve([2, 3]))?.steps).toEqual([0, 1, 2, 3]);
  });
  it("changes nothing when the same points come again", () => {
    const base = curve([0, 1, 2], [5, 4, 3]);
    expect(mergeCurve(base, curve([1, 2], [4, 3]))).toEqual(base);
  });
  it("folds raw points into the base's tier without losing an extremum", () => {
    const base = curve([15, 20], [1, 2], { tier: 16, low: [0, 1], high: [9, 3] });
    const merged = mergeCurve(base, curve([16, 20, 21, 22, 32], [2, 2, 50, -7, 4]));
    expect(merged?.steps).toEqual([15, 22, 32]);
    expect(merged?.values).toEqual([1, -7, 4]);
    expect(merged?.high).toEqual([9, 50, 4]);
    expect(merged?.low).toEqual([0, -7, 4]);
    expect(merged?.means).toEqual([1, (2 + 2 + 50 - 7) / 4, 4]);
  });
  it("refuses coarser points than it has", () => {
    expect(mergeCurve(curve([0, 1]), curve([31], [1], { tier: 16 }))).toBeNull();
  });
  it("keeps the steps that were not finite, once each", () => {
    expect(mergeCurve(curve([0], [1], { non_finite: [0] }), curve([0, 1], [null, null], { non_finite: [0, 1] }))?.non_finite).toEqual([0, 1]);
  });
  it("asks again from the first step of the last bucket", () => {
    expect(resumeStep(curve([15, 21], [0, 0], { tier: 16 }))).toBe(16);
    expect(resumeStep(curve([0, 7]))).toBe(7);
    expect(resumeStep(curve([]))).toBe(0);
  });
});

describe("stitch", () => {
  it("lets the later attempt win where two overlap, and keeps the rest apart", () => {
    const { curve: whole, abandoned, boundaries } = stitch([curve([0, 1, 2, 3], [9, 8, 7, 6]), curve([2, 3, 4], [7.5, 6.5, 5.5])]);
    expect(whole?.steps).toEqual([0, 1, 2, 3, 4]);
    expect(whole?.values).toEqual([9, 8, 7.5, 6.5, 5.5]);
    expect(abandoned.map((a) => a.steps)).toEqual([[1, 2, 3]]);
    expect(boundaries).toEqual([2]);
  });
  it("joins attempts that do not overlap", () => {
    const { curve: whole, abandoned } = stitch([curve([0, 1]), curve([2, 3])]);
    expect(whole?.steps).toEqual([0, 1, 2, 3]);
    expect(abandoned).toEqual([]);
  });
  it("gives each part only what was not finite inside of it", () => {
    const first = curve([0, 1, 2, 3], [9, null, 7, null], { non_finite: [1, 3] });
    const { curve: whole, abandoned } = stitch([first, curve([2, 3, 4], [7, 6, 5])]);
    expect(whole?.non_finite).toEqual([1]);
    expect(abandoned[0]?.non_finite).toEqual([3]);
  });
  it("has nothing for nothing", () => {
    expect(stitch([])).toEqual({ curve: null, abandoned: [], boundaries: [] });
  });
});

describe("spliced", () => {
  const whole = curve([15, 31, 47, 63], [1, 2, 3, 4], { tier: 16, non_finite: [3, 60] });
  it("puts exact points into the whole curve, each step once", () => {
    const [out] = spliced([whole], [curve([16, 20, 31], [5, 6, 7])]);
    expect(out?.steps).toEqual([15, 16, 20, 31, 47, 63]);
    expect(out?.values).toEqual([1, 5, 6, 7, 3, 4]);
    expect(out?.non_finite).toEqual([3, 60]);
  });
  it("leaves a curve alone of which there is nothing finer", () => {
    expect(spliced([whole], [])).toEqual([whole]);
  });
});
