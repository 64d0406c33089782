import { expect, test } from "vitest";

import { readLayouts, spanAt, ticksOf } from "./layout-shape";

const LAYOUT = {
  refusals: [],
  would_fit: null,
  nodes: 2,
  pp: 2,
  by_rank: [{ rank: 0, layers: [1, 2], device_bytes: 5 }],
  timeline: { microbatches: 2, of: 8, seconds: 3, ranks: [[["F", 0, 0, 0, 1], ["I", 0, 0, 2, 3]], []] },
  sweep: { tried: 9, refused: { layout: 2, memory: 3 }, ranked: [{ pp: 1, days: null }] },
};
const planOf = (layout: unknown) => ({ stages: [{ id: "corpus" }, { id: "pretrain", training: { layout, assumptions: { memory_bytes: 80 } } }] });

test("stages that train have a layout, others none", () => {
  const [layout, ...others] = readLayouts(planOf(LAYOUT));
  expect(others).toEqual([]);
  expect(layout).toMatchObject({ stage: "pretrain", nodes: 2, memoryBytes: 80, wouldFit: null });
  expect(layout?.byRank[0]).toMatchObject({ layers: [1, 2], device: 5, host: 0 });
  expect(layout?.sweep).toMatchObject({ tried: 9, refused: 5 });
});

test("a layout that was refused has reasons and no picture", () => {
  const [layout] = readLayouts(planOf({ refusals: ["40 nodes % 32 = 8"], would_fit: null }));
  expect(layout).toMatchObject({ refusals: ["40 nodes % 32 = 8"], timeline: null, sweep: null, byRank: [] });
});

test("the span under the pointer is found, and none in a pause", () => {
  const timeline = readLayouts(planOf(LAYOUT))[0]?.timeline;
  if (!timeline) throw new Error("no timeline");
  expect(spanAt(timeline, 0, 0.5)?.[0]).toBe("F");
  expect(spanAt(timeline, 0, 1.5)).toBeNull();
  expect(spanAt(timeline, 1, 0.5)).toBeNull();
});

test("an axis has round numbers and ends with the schedule", () => {
  expect(ticksOf(0.43)).toEqual([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]);
  expect(ticksOf(7)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(ticksOf(0)).toEqual([0]);
});
