import { describe, expect, it } from "vitest";

import type { SeriesOut } from "@/api";

import { interpolate, linesOf, type Scale, stepsOf } from "./lines";
import { continued } from "./queries";

const curve = (steps: number[], attempt = "r-s-1"): SeriesOut => ({
  attempt_id: attempt, stage_id: "s", key: "train/loss", tier: 1, interval: 1, means: steps.map((s) => 10 - s), steps, values: steps.map((s) => 10 - s), low: steps.map((s) => 9 - s),
  high: steps.map((s) => 11 - s), at: steps.map((s) => 1000 + 2 * s), non_finite: [],
});
const scale = (more: Partial<Scale> = {}): Scale => ({ axis: "step", tokens: null, startSeconds: 1000, ...more });
const source = (curves: SeriesOut[]) => ({ id: "a", label: "a", stroke: { color: "c", dash: [] }, curves });

describe("linesOf", () => {
  it("marks where a second attempt begins and keeps what was given up behind", () => {
    const { lines, boundaries } = linesOf([source([curve([0, 1, 2, 3]), curve([2, 3, 4], "r-s-2")])], 0, () => scale());
    expect(boundaries).toEqual([{ x: 2, label: "attempt 2" }]);
    expect(lines.map((line) => line.isAbandoned)).toEqual([true, false]);
  });
  it("smooths the line, never the band", () => {
    const raw = curve([0, 1, 2]);
    const [line] = linesOf([source([raw])], 0.9, () => scale()).lines;
    expect(line?.y).not.toEqual(raw.values);
    expect(line?.raw).toEqual(raw.values);
    expect(line?.high).toEqual(raw.high);
  });
  it("draws over time since the start, or over tokens", () => {
    const [byTime] = linesOf([source([curve([0, 5])])], 0, () => scale({ axis: "time" })).lines;
    expect(byTime?.x).toEqual([0, 10]);
    const tokens = { ...curve([0, 10]), values: [0, 1000] };
    const [byTokens] = linesOf([source([curve([0, 5])])], 0, () => scale({ axis: "tokens", tokens })).lines;
    expect(byTokens?.x).toEqual([0, 500]);
  });
  it("points at the steps that were not finite", () => {
    const broken = { ...curve([0, 1, 2]), non_finite: [1] };
    expect(linesOf([source([broken])], 0, () => scale({ axis: "time" })).lines[0]?.broken).toEqual([2]);
  });
  it("points at every step that was not finite, also inside of a bucket", () => {
    const coarse = { ...curve([15, 31, 47]), tier: 16, non_finite: [3, 17, 30, 47] };
    expect(linesOf([source([coarse])], 0, () => scale()).lines[0]?.broken).toEqual([3, 17, 30, 47]);
    expect(linesOf([source([coarse])], 0, () => scale({ axis: "time" })).lines[0]?.broken).toEqual([6, 34, 60, 94]);
  });
});

describe("interpolate", () => {
  it("is exact at points, linear between, and goes on beyond", () => {
    expect([0, 5, 10, 20].map((x) => interpolate([0, 10], [0, 100], x))).toEqual([0, 50, 100, 200]);
  });
});

describe("stepsOf", () => {
  it("finds the steps behind a zoom in seconds", () => {
    expect(stepsOf(curve([0, 50, 100]), scale({ axis: "time" }), [20, 40])).toEqual([9, 21]);
  });
});

describe("continued", () => {
  it("takes new points and leaves other attempts alone", () => {
    const out = continued([curve([0, 1]), curve([2, 3], "r-s-2")], [curve([3, 4], "r-s-2")], 100);
    expect(out?.map((c) => c.steps)).toEqual([[0, 1], [2, 3, 4]]);
  });
  it("asks for everything when a curve is new", () => {
    expect(continued([curve([0, 1])], [curve([0], "r-s-2")], 100)).toBeNull();
  });
  it("asks for coarser buckets when a curve has grown too long", () => {
    expect(continued([curve([0, 1])], [curve([1, 2, 3])], 3)).toBeNull();
  });
});
