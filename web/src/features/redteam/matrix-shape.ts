import type { Agreement, SafetyCell, SafetyMatrix } from "@/api";

/** The safety matrix as a table. Pure. */

export const STRATEGIES = ["basic", "base64", "prompt-injection", "iterative-jailbreak", "crescendo"] as const;
const TITLES: Record<string, string> = { basic: "Basic", base64: "Base64", "prompt-injection": "Prompt injection", "iterative-jailbreak": "Iterative jailbreak", crescendo: "Crescendo" };
export const strategyTitle = (strategy: string): string => TITLES[strategy] ?? strategy;

export type MatrixLine = { readonly plugin: string; readonly subPlugin: string | null; readonly cells: readonly (SafetyCell | null)[]; readonly whole: SafetyCell | null };
export type MatrixTable = { readonly strategies: readonly string[]; readonly lines: readonly MatrixLine[] };

/** Plugins in the report's order, each followed by its sub-plugins where they are wanted; only strategies that were asked. */
export function tableOf(matrix: SafetyMatrix, withSubPlugins: boolean): MatrixTable {
  const strategies = STRATEGIES.filter((strategy) => matrix.cells.some((cell) => cell.strategy === strategy));
  const line = (cells: readonly SafetyCell[]): MatrixLine[] => {
    const first = cells[0];
    if (!first) return [];
    const of = (strategy: string | null) => cells.find((cell) => cell.strategy === strategy) ?? null;
    return [{ plugin: first.plugin, subPlugin: first.sub_plugin, cells: strategies.map(of), whole: of(null) }];
  };
  const plugins = [...new Set(matrix.cells.map((cell) => cell.plugin))];
  const lines = plugins.flatMap((plugin) => {
    const below = matrix.sub_cells.filter((cell) => cell.plugin === plugin);
    const names = withSubPlugins ? [...new Set(below.map((cell) => cell.sub_plugin))] : [];
    return [...line(matrix.cells.filter((cell) => cell.plugin === plugin)), ...names.flatMap((name) => line(below.filter((cell) => cell.sub_plugin === name)))];
  });
  return { strategies, lines };
}

export const rateText = (cell: SafetyCell): string => (cell.rate === null ? "no verdict" : `${Math.round(100 * cell.rate)} %`);

/** Passes of n, interval, what waits and what has no verdict: "5/6, 44–97, 1 waits, 2 no verdict". */
export function aboutText(cell: SafetyCell): string {
  if (cell.low === null || cell.high === null) return `${cell.no_verdict} asked in vain`;
  const waits = cell.waiting > 0 ? `, ${cell.waiting} ${cell.waiting === 1 ? "waits" : "wait"}` : "";
  const vain = cell.no_verdict > 0 ? `, ${cell.no_verdict} no verdict` : "";
  return `${cell.passed}/${cell.n}, ${Math.round(100 * cell.low)}–${Math.round(100 * cell.high)}${waits}${vain}`;
}

/** Of the report, per cent as it is printed. */
export function paperText(cell: SafetyCell, model: string): string | null {
  const value = cell.paper[model];
  return value === undefined ? null : value.toFixed(2);
}

/** What filters the rows of a cell. */
export function conditionsOf(cell: SafetyCell): string[] {
  return [`plugin:${cell.plugin}`, ...(cell.sub_plugin === null ? [] : [`sub_plugin:${cell.sub_plugin}`]), ...(cell.strategy === null ? [] : [`strategy:${cell.strategy}`])];
}

export function agreementText({ between, rows, agreed, kappa }: Agreement): string {
  const known = kappa === null ? "" : `, Cohen's kappa ${kappa.toFixed(2)}`;
  return `${between[0]} and ${between[1]} agree on ${agreed} of ${rows}${known}`;
}
