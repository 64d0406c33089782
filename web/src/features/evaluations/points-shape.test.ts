import { expect, test } from "vitest";

import type { EvaluationOut } from "@/api";

import { pointsOf, suiteLabel } from "./points-shape";

const evaluation = (id: string, suite: string, step: number | null, value: number | null, change: { stage?: string; tools?: boolean } = {}): EvaluationOut =>
  ({ id, suite, target_detail: { stage_id: change.stage ?? "train", step }, summary: { settings: { tools: change.tools ?? false }, score: value === null ? null : { value, low: null, high: null, items: 3 } } }) as unknown as EvaluationOut;

test("a stage's checkpoints are points by suite in the order of their steps, the newest of each", () => {
  const found = pointsOf([evaluation("new", "b@1", 20, 0.5), evaluation("old", "b@1", 20, 0.1), evaluation("first", "b@1", 10, 0.2), evaluation("a", "a@1", 10, 0.3, { tools: true })], "train");
  expect(found.map(suiteLabel)).toEqual(["a@1 with tools", "b@1"]);
  expect(found[1]?.points.map((point) => [point.id, point.step])).toEqual([["first", 10], ["new", 20]]);
});

test("what has no step, no score, or is another stage's is no point", () => {
  expect(pointsOf([evaluation("x", "a@1", null, 0.5), evaluation("y", "a@1", 10, null), evaluation("z", "a@1", 10, 0.5, { stage: "sft" })], "train")).toEqual([]);
});
