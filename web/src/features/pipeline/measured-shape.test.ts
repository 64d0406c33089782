import { expect, test } from "vitest";

import { chunksOf, firstOf, idleOf, meanOf, readMeasured, shareAxis } from "./measured-shape";

const KEPT = {
  step: 10, step_seconds: 2.5, seconds: 2, idle: 0.25, microbatches: 2, of: 2,
  ranks: [[["F", 0, 0, 0, 0.5], ["F", 2, 1, 0.5, 1], ["I", 0, 0, 1, 2]], [["F", 1, 0, 0.5, 1], ["W", 3, 1, 1, 1.5]]],
};

test("a measured step says how long it took, how much of it ranks waited, and what an operation takes", () => {
  const measured = readMeasured(KEPT);
  if (!measured) throw new Error("not read");
  expect([measured.step, measured.stepSeconds, measured.timeline.seconds]).toEqual([10, 2.5, 2]);
  expect(idleOf(measured.timeline)).toBeCloseTo(0.25);
  expect(chunksOf(measured.timeline)).toBe(2);
  expect([meanOf(measured.timeline, "F"), meanOf(measured.timeline, "I"), meanOf(measured.timeline, "X")]).toEqual([0.5, 1, null]);
});

test("beside a plan that draws some micro-batches stand these alone", () => {
  const timeline = readMeasured(KEPT)?.timeline;
  if (!timeline) throw new Error("not read");
  expect(firstOf(timeline, 1)).toMatchObject({ microbatches: 1, of: 2, seconds: 2 });
  expect(firstOf(timeline, 1).ranks.map((spans) => spans.length)).toEqual([2, 1]);
  expect(firstOf(timeline, 2)).toBe(timeline);
});

test("what is no timeline is none, and lengths far apart have an axis each", () => {
  expect([readMeasured(null), readMeasured({ ranks: 3 })]).toEqual([null, null]);
  expect([shareAxis(1, 3), shareAxis(0.1, 3)]).toEqual([true, false]);
});
