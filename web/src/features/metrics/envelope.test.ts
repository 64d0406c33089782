import { describe, expect, it } from "vitest";

import type { SeriesOut } from "@/api";

import { envelope } from "./envelope";

const layer = (attempt: string, values: (number | null)[], more: Partial<SeriesOut> = {}): SeriesOut => ({
  attempt_id: attempt, stage_id: "s", key: "l", tier: 1, interval: 1, steps: values.map((_, i) => i), values, low: values, high: values, means: values, at: values.map((_, i) => i), non_finite: [], ...more,
});

describe("envelope", () => {
  it("takes the highest layer at each step and keeps attempts apart", () => {
    const out = envelope([layer("1", [1, 5, null]), layer("1", [3, 2, 4]), layer("2", [9])], "max");
    expect(out.map((curve) => curve.values)).toEqual([[3, 5, 4], [9]]);
  });
  it("keeps a spike of any layer", () => {
    const [curve] = envelope([layer("1", [1, 1], { high: [1, 80] }), layer("1", [2, 2])], "max");
    expect(curve?.high).toEqual([2, 80]);
  });
});
