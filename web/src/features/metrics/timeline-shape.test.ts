import { describe, expect, it } from "vitest";

import type { SeriesOut } from "@/api";

import { columnsOf, totalsOf } from "./timeline-shape";

const curve = (key: string, values: number[]): SeriesOut => {
  const steps = values.map((_, i) => i + 1);
  return { attempt_id: "a-1", stage_id: "rl", key, tier: 1, interval: 1, steps, values, low: values, high: values, means: values, at: steps, non_finite: [] };
};

describe("columnsOf", () => {
  const curves = [curve("time/infer", [3, 1, 2, 2]), curve("time/train", [1, 1, 0, 2])];
  it("stacks causes by iteration, and puts neighbours together where there are many", () => {
    expect(columnsOf(curves, 10).map(({ from, total }) => [from, total])).toEqual([[1, 4], [2, 2], [3, 2], [4, 4]]);
    expect(columnsOf(curves, 2).map(({ from, to, seconds }) => [from, to, seconds.infer, seconds.train])).toEqual([[1, 2, 4, 2], [3, 4, 4, 2]]);
    expect(columnsOf([], 10)).toEqual([]);
  });
  it("says what each cause took of all", () => {
    expect(totalsOf(columnsOf(curves, 10))).toEqual([["infer", 8, 8 / 12], ["train", 4, 4 / 12]]);
    expect(totalsOf([])).toEqual([]);
  });
});
