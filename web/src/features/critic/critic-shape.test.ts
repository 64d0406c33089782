import { expect, test } from "vitest";

import type { SeriesOut } from "@/api";

import { hasCritic, spellsOf } from "./critic-shape";

const curve = (attempt: string, steps: number[], values: number[]): SeriesOut => ({
  attempt_id: attempt, stage_id: "rl", key: "rl/critic/frozen", tier: 1, interval: 1, steps, values, low: values, high: values, means: values, at: steps, non_finite: [],
});

test("iterations in a row are one spell, over attempts", () => {
  const curves = [curve("a", [1, 2, 3, 4], [1, 1, 0, 0]), curve("b", [4, 5, 6], [0, 1, 1])];
  expect(spellsOf(curves)).toEqual([
    { from: 1, to: 2, isFrozen: true },
    { from: 3, to: 4, isFrozen: false },
    { from: 5, to: 6, isFrozen: true },
  ]);
  expect(spellsOf([])).toEqual([]);
});

test("a stage has a critic when it tells of one", () => {
  const keys = [{ stage_id: "rl", key: "rl/critic/frozen", last_step: 1, last_value: 0 }];
  expect(hasCritic(keys, "rl")).toBe(true);
  expect(hasCritic(keys, "sft")).toBe(false);
});
