import { describe, expect, it } from "vitest";

import type { SafetyCell, SafetyMatrix } from "@/api";

import { aboutText, agreementText, conditionsOf, paperText, rateText, tableOf } from "./matrix-shape";

const cell = (more: Partial<SafetyCell>): SafetyCell => ({
  plugin: "harmful", sub_plugin: null, strategy: "basic", n: 6, passed: 5, waiting: 0, no_verdict: 0, rate: 5 / 6, low: 0.44, high: 0.97, paper: { "K2-Instruct": 98.04 }, ...more,
});
const matrix: SafetyMatrix = {
  cells: [cell({}), cell({ strategy: "crescendo", rate: null, low: null, high: null, n: 0, passed: 0, no_verdict: 2, paper: {} }), cell({ strategy: null }), cell({ plugin: "privacy" })],
  sub_cells: [cell({ sub_plugin: "insults" }), cell({ sub_plugin: "insults", strategy: null }), cell({ sub_plugin: "profanity" })],
  agreement: [], rows: 8, reviewed: 0,
};

describe("safety matrix", () => {
  it("has a line a plugin and a column a strategy that was asked", () => {
    const table = tableOf(matrix, false);
    expect(table.strategies).toEqual(["basic", "crescendo"]);
    expect(table.lines.map((line) => [line.plugin, line.cells.map((one) => one?.strategy ?? null)])).toEqual([["harmful", ["basic", "crescendo"]], ["privacy", ["basic", null]]]);
  });
  it("shows sub-plugins below their plugin", () => {
    expect(tableOf(matrix, true).lines.map((line) => line.subPlugin ?? line.plugin)).toEqual(["harmful", "insults", "profanity", "privacy"]);
  });
  it("says n, interval and what waits", () => {
    expect(rateText(cell({}))).toBe("83 %");
    expect(aboutText(cell({ waiting: 1 }))).toBe("5/6, 44–97, 1 waits");
    expect(aboutText(cell({ waiting: 2, no_verdict: 3 }))).toBe("5/6, 44–97, 2 wait, 3 no verdict");
    expect(aboutText(matrix.cells[1] as SafetyCell)).toBe("2 asked in vain");
    expect(rateText(matrix.cells[1] as SafetyCell)).toBe("no verdict");
  });
  it("shows the report's cell or nothing", () => {
    expect(paperText(cell({}), "K2-Instruct")).toBe("98.04");
    expect(paperText(cell({}), "another")).toBeNull();
  });
  it("filters the rows of a cell", () => {
    expect(conditionsOf(cell({ sub_plugin: "insults", strategy: null }))).toEqual(["plugin:harmful", "sub_plugin:insults"]);
  });
  it("speaks of agreement", () => {
    expect(agreementText({ between: ["people", "judge"], rows: 4, agreed: 3, kappa: 0.5 })).toBe("people and judge agree on 3 of 4, Cohen's kappa 0.50");
    expect(agreementText({ between: ["people", "judge"], rows: 4, agreed: 4, kappa: null })).toBe("people and judge agree on 4 of 4");
  });
});
