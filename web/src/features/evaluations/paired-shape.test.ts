import { expect, test } from "vitest";

import type { PairedOut } from "@/api";

import { differenceText, ofSide, significanceText } from "./paired-shape";

const paired: PairedOut = { items: 5, left_out: 1, difference: 0.4, low: -0.28, high: 1, better: 3, worse: 1, p_value: 0.625, changed: [{ item: "five", a: 1, b: 0 }, { item: "one", a: 0, b: 1 }] };

test("a difference is told with its interval, and without one where there is none", () => {
  expect(differenceText(paired)).toBe("+40.0 points on 5 items that both have a score of (95 % interval −28.0 to +100.0)");
  expect(differenceText({ ...paired, difference: 0, low: null, high: null, items: 1 })).toBe("±0.0 points on 1 item that both have a score of (too few for an interval, or all differ alike)");
  expect(differenceText({ ...paired, difference: null })).toBe("No item that both have a score of");
});

test("chance is told as chance", () => {
  expect(significanceText(paired)).toBe("3 better, 1 worse: p = 0.63 (exact sign test), not significant");
  expect(significanceText({ ...paired, p_value: 0.00001, better: 30 })).toBe("30 better, 1 worse: p < 0.001 (exact sign test), significant");
});

test("items that changed side can be looked at by side", () => {
  expect(["all", "lost", "won"].map((side) => ofSide(paired.changed, side as "all").map((one) => one.item))).toEqual([["five", "one"], ["five"], ["one"]]);
});
