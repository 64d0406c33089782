import { expect, test } from "vitest";

import type { LeaderboardCell, LeaderboardRow, PaperCell } from "@/api";

import { boardCsv, cellsOf, flagsOf, intervalText, oursFor, paperText, scoreOf, sorted, targetName } from "./board-shape";

const figure = (value: number, items = 30) => ({ value, low: value - 0.1, high: value + 0.1, items });
const cell = (suite: string, value: number | null, change: Partial<LeaderboardCell> = {}): LeaderboardCell => ({
  evaluation_id: `${suite} ${value}`, suite, tools: false, score: value === null ? null : figure(value), items: 30, missing: 0, truncation_rate: 0, contaminated: null, clean_score: null, subtasks: {}, created_at: "2026-11-27T00:00:00Z", ...change,
});
const row = (target: string, ...cells: LeaderboardCell[]): LeaderboardRow => ({ target, target_detail: {}, run_id: "r", run_name: "run", recipe_name: "tiny", evaluated_at: "", cells });

test("rows are sorted by a suite, the best first, and those without a score come last either way", () => {
  const rows = [row("low", cell("a@1", 0.1)), row("none", cell("b@1", 0.9)), row("high", cell("a@1", 0.4)), row("failed", cell("a@1", null))];
  const names = (asc: boolean) => sorted(rows, "a@1", asc).map((one) => one.target);
  expect(names(false)).toEqual(["high", "low", "none", "failed"]);
  expect(names(true)).toEqual(["low", "high", "none", "failed"]);
  expect(sorted(rows, undefined, false).map((one) => one.target)).toEqual(["low", "none", "high", "failed"]);
});

test("with and without tools are two figures of one cell, sorted by the better", () => {
  const cells = cellsOf(row("t", cell("a@1", 0.2), cell("a@1", 0.5, { tools: true })), "a@1");
  expect([cells.plain?.score?.value, cells.tools?.score?.value, scoreOf(cells)]).toEqual([0.2, 0.5, 0.5]);
});

test("a figure says what makes it less than it seems", () => {
  expect(flagsOf(cell("a@1", 0.5))).toEqual([]);
  expect(flagsOf(cell("a@1", 0.5, { truncation_rate: 0.125, missing: 2, contaminated: 3, clean_score: figure(0.4) })).map((flag) => flag.text)).toEqual(["12.5 % cut", "2 no score", "3 seen in training"]);
  expect(flagsOf(cell("a@1", 0.5, { contaminated: 3, clean_score: figure(0.4) }))[0]?.about).toContain("Without them 40.0 %");
  expect(intervalText({ value: 1, low: null, high: null, items: 2 })).toBe("too few items");
  expect(intervalText(figure(0.5))).toBe("40.0–60.0");
});

test("the CSV has a line a cell, quotes what must be, and no text that is a formula", () => {
  const csv = boardCsv([{ ...row("=1+1", cell("a@1", 0.5, { tools: true })), run_name: 'a "big", one' }]);
  const [head, line, end] = csv.split("\r\n");
  expect(head?.split(",").slice(5, 11)).toEqual(["suite", "tools", "score", "low", "high", "n"]);
  expect(line).toContain("'=1+1,'=1+1,r,\"a \"\"big\"\", one\",tiny,a@1,true,0.5,0.4,0.6,30,30,0,0,,");
  expect(end).toBe("");
});

test("beside the paper stands the first suite that was asked, or the part of it that the paper means", () => {
  const paper: PaperCell = { benchmark: "AIME", suites: ["full", "part"], subtask: "", setting: "", values: {}, notes: { part: "15 of 30" } };
  expect(oursFor(paper, row("t", cell("part@1", 0.3)))).toEqual({ figure: figure(0.3), evaluationId: "part@1 0.3", note: "15 of 30" });
  expect(oursFor(paper, row("t", cell("part@1", 0.3), cell("full@2", 0.4, { tools: true }), cell("full@2", 0.2)))?.figure.value).toBe(0.2);
  expect(oursFor({ ...paper, suites: ["tau2"], subtask: "retail" }, row("t", cell("tau2@1", 0.3, { subtasks: { airline: figure(0.6) } })))).toBeNull();
  expect(oursFor({ ...paper, suites: [] }, row("t", cell("a@1", 0.3)))).toBeNull();
});

test("the paper's numbers are printed as it prints them", () => {
  expect([paperText(53.7), paperText(80.33), paperText(30), paperText("59.4*"), paperText(undefined)]).toEqual(["53.7", "80.33", "30.0", "59.4*", ""]);
});

test("a checkpoint is named by its stage, an endpoint by its model", () => {
  expect(targetName({ target: "sha256:1", target_detail: { stage_id: "sft", name: "final", model: null } })).toBe("sft final");
  expect(targetName({ target: "sha256:1 yarn 4x1024", target_detail: { stage_id: "sft", name: "final", yarn: "4x1024" } })).toBe("sft final, YaRN 4x1024");
  expect(targetName({ target: "openai:gpt", target_detail: { model: "gpt", endpoint: "them" } })).toBe("gpt");
  expect(targetName({ target: "sha256:0123456789abcdef0123456789", target_detail: {} })).toBe("sha256:0123456789abcdef…");
});
