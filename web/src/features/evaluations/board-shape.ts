import type { EvaluationOut, Figure, LeaderboardCell, LeaderboardRow, PaperCell } from "@/api";
import { textOf } from "@/lib/unknown";

/** The leaderboard as a table, as CSV and beside the paper's. Pure. */

type Target = Pick<EvaluationOut, "target" | "target_detail">;

/** "pretrain step-00000600" of a checkpoint, the model's name of an endpoint. */
export function targetName({ target, target_detail: detail }: Target): string {
  if (detail.stage_id && detail.name) return `${detail.stage_id} ${detail.name}${detail.yarn ? `, YaRN ${detail.yarn}` : ""}`;
  return textOf(detail.model) || textOf(detail.endpoint) || (target.length > 24 ? `${target.slice(0, 23)}…` : target);
}

export type Cells = { readonly plain: LeaderboardCell | null; readonly tools: LeaderboardCell | null };

/** Of a suite: asked without tools and with them. */
export function cellsOf(row: LeaderboardRow, suite: string): Cells {
  const mine = row.cells.filter((cell) => cell.suite === suite);
  return { plain: mine.find((cell) => !cell.tools) ?? null, tools: mine.find((cell) => cell.tools) ?? null };
}

/** What a row is sorted by: its better figure where it was asked in both ways. */
export function scoreOf({ plain, tools }: Cells): number | null {
  const scores = [plain, tools].flatMap((cell) => (cell?.score ? [cell.score.value] : []));
  return scores.length > 0 ? Math.max(...scores) : null;
}

/** By a suite, the best first unless `asc`; rows without a score come last either way. Without a suite as they came. */
export function sorted(rows: readonly LeaderboardRow[], suite: string | undefined, asc: boolean): LeaderboardRow[] {
  if (suite === undefined) return [...rows];
  const keyed = rows.map((row) => ({ row, score: scoreOf(cellsOf(row, suite)) }));
  keyed.sort((a, b) => (a.score === null ? 1 : 0) - (b.score === null ? 1 : 0) || (asc ? 1 : -1) * ((a.score ?? 0) - (b.score ?? 0)));
  return keyed.map(({ row }) => row);
}

/** 0.4213 → "42.1". */
export const hundredths = (share: number): string => (100 * share).toFixed(1);

/** "38.0–46.2", or why there is none. */
export const intervalText = ({ low, high }: Figure): string => (low === null || low === undefined || high === null || high === undefined ? "too few items" : `${hundredths(low)}–${hundredths(high)}`);

/** What makes a figure less than it seems: short, for the cell. */
export function flagsOf(cell: LeaderboardCell): { readonly text: string; readonly about: string }[] {
  const flags = [];
  if (cell.truncation_rate > 0) flags.push({ text: `${hundredths(cell.truncation_rate)} % cut`, about: "Answers that reached the cap of tokens; each is scored as far as it goes." });
  if (cell.missing > 0) flags.push({ text: `${cell.missing} no score`, about: "Items without a score count nowhere." });
  if (cell.contaminated) {
    const clean = cell.clean_score ? ` Without them ${hundredths(cell.clean_score.value)} %.` : "";
    flags.push({ text: `${cell.contaminated} seen in training`, about: `Items that share a run of words with the training text.${clean}` });
  }
  return flags;
}

const COLUMNS = ["target", "checkpoint", "evaluated_by_run", "run_name", "recipe", "suite", "tools", "score", "low", "high", "n", "items", "no_score", "truncation_rate", "contaminated", "clean_score", "evaluation_id", "created_at"];

/** A line a cell, so that any table program can turn it as it likes. */
export function boardCsv(rows: readonly LeaderboardRow[]): string {
  const lines = rows.flatMap((row) =>
    row.cells.map((cell) => [
      row.target, targetName(row), row.run_id, row.run_name, row.recipe_name, cell.suite, cell.tools, cell.score?.value, cell.score?.low, cell.score?.high, cell.score?.items,
      cell.items, cell.missing, cell.truncation_rate, cell.contaminated, cell.clean_score?.value, cell.evaluation_id, cell.created_at,
    ]),
  );
  return [COLUMNS, ...lines].map((line) => `${line.map(field).join(",")}\r\n`).join("");
}

/** RFC 4180; a text that a table program would take for a formula is marked as text. */
function field(value: string | number | boolean | null | undefined): string {
  if (typeof value !== "string") return value === null || value === undefined ? "" : String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export type Ours = { readonly figure: Figure; readonly evaluationId: string; readonly note: string };

/** Our figure for a benchmark of the paper: of the first of its suites that was asked, without tools where there is a choice. */
export function oursFor(paper: PaperCell, row: LeaderboardRow): Ours | null {
  for (const name of paper.suites) {
    const mine = row.cells.filter((cell) => cell.suite.split("@")[0] === name).sort((a, b) => Number(a.tools) - Number(b.tools) || b.suite.localeCompare(a.suite));
    for (const cell of mine) {
      const figure = paper.subtask ? cell.subtasks[paper.subtask] : cell.score;
      if (figure) return { figure, evaluationId: cell.evaluation_id, note: paper.notes[name] ?? "" };
    }
  }
  return null;
}

/** "53.7" as the paper prints it; what it took from a vendor keeps its star. */
export const paperText = (value: number | string | undefined): string => (value === undefined ? "" : typeof value === "number" ? (Number.isInteger(value * 10) || value.toFixed(2).endsWith("0") ? value.toFixed(1) : value.toFixed(2)) : value);
