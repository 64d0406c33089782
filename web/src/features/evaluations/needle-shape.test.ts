import { expect, test } from "vitest";

import type { EvaluationOut } from "@/api";

import { needleMap, needleText, positionsText, waysOf } from "./needle-shape";

const figure = (value: number, items = 8) => ({ value, low: 0.4, high: 0.93, items });

function evaluation(id: string, detail: EvaluationOut["target_detail"], change: Partial<EvaluationOut["summary"]> = {}): EvaluationOut {
  const subtasks = { "860 words, 0 %": figure(1), "860 words, 100 %": figure(0.75), "3440 words, 0 %": figure(0.5), "90 words, 0 %": figure(1), other: figure(1) };
  const subtask_tokens = { "90 words, 0 %": 130, "860 words, 0 %": 1000, "860 words, 100 %": 1010, "3440 words, 0 %": 4000 };
  return { id, suite: "needle@1", target: "", target_detail: { digest: "sha256:1", ...detail }, summary: { subtasks, subtask_tokens, ...change } } as unknown as EvaluationOut;
}

test("a map has lengths and depths in order, and knows which lengths were trained on", () => {
  const map = needleMap(evaluation("a", { trained_length: 1024 }));
  expect(map?.lengths).toEqual([{ words: 90, tokens: 130 }, { words: 860, tokens: 1010 }, { words: 3440, tokens: 4000 }]);
  expect(map?.depths).toEqual([0, 100]);
  expect(map?.cells.map((line) => line.map((cell) => cell?.value ?? null))).toEqual([[1, 1, 0.5], [null, 0.75, null]]);
  expect([map?.trained, map?.inside]).toEqual([1024, 2]);
});

test("without counted tokens no length is called trained, and another suite has no map", () => {
  expect(needleMap(evaluation("a", { trained_length: 1024 }, { subtask_tokens: {} }))).toMatchObject({ trained: null, inside: 0, lengths: [{ tokens: null }, {}, {}] });
  expect(needleMap({ ...evaluation("a", {}), suite: "sums@1" })).toBeNull();
  expect(needleMap(evaluation("a", {}, { subtasks: {} }))).toBeNull();
});

test("a cell says right answers of n and the interval", () => {
  expect(needleText(figure(0.75))).toBe("6/8, 40–93");
  expect(needleText(figure(0.7))).toBe("n 8, 40–93");
  expect(needleText({ value: 1, low: null, high: null, items: 2 })).toBe("2/2, no interval");
});

test("beside a map stand the newest of the same checkpoint for other ways of turning positions", () => {
  const mine = evaluation("mine", { yarn: "4x1024" });
  const others = [evaluation("new", {}), evaluation("old", {}), evaluation("same", { yarn: "4x1024" }), evaluation("foreign", { digest: "sha256:2", yarn: "8x1024" }), evaluation("one", { yarn: "1x1024" })];
  expect(waysOf(mine, others).map((one) => one.id)).toEqual(["new", "mine"]);
  expect(waysOf(evaluation("lone", { digest: null }), [evaluation("other", { digest: null, yarn: "4x1024" })]).map((one) => one.id)).toEqual(["lone"]);
  expect([positionsText({}), positionsText({ yarn: "4x1024" }), positionsText({ trained_yarn: "32x4096" }), positionsText({ trained_yarn: "32x4096", yarn: "1x1024" })]).toEqual([
    "Without YaRN, as trained", "YaRN, 4 times 1,024 positions", "YaRN, 32 times 4,096 positions, as trained", "Without YaRN",
  ]);
});
