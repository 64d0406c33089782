import type { EvaluationOut, Figure } from "@/api";
import { whole } from "@/lib/format";
import { textOf } from "@/lib/unknown";

/** What the suite `needle` came to, by the length of the text and the depth of the needle. Pure. */

export type NeedleLength = { readonly words: number; /** Of a prompt of this length, in the middle; null where nobody counted. */ readonly tokens: number | null };
export type NeedleMap = {
  readonly lengths: readonly NeedleLength[];
  /** Per cent of the text that stands before the needle. */
  readonly depths: readonly number[];
  /** [depth][length]; null where nothing could be scored. */
  readonly cells: readonly (readonly (Figure | null)[])[];
  /** Tokens of the longest sequences that the checkpoint was trained on; null where nobody knows. */
  readonly trained: number | null;
  /** So many of the lengths, from the shortest, lie inside it. */
  readonly inside: number;
};

const CELL = /^(\d+) words, (\d+) %$/;

export const cellName = (words: number, depth: number): string => `${words} words, ${depth} %`;
export const isNeedle = ({ suite }: Pick<EvaluationOut, "suite">): boolean => suite.startsWith("needle@");

/** Null where there is no such grid. */
export function needleMap({ suite, summary, target_detail: detail }: Pick<EvaluationOut, "suite" | "summary" | "target_detail">): NeedleMap | null {
  if (!isNeedle({ suite })) return null;
  const figures = summary.subtasks ?? {};
  const tokens = summary.subtask_tokens ?? {};
  const places = Object.keys(figures).flatMap((name) => {
    const found = CELL.exec(name);
    return found ? [[Number(found[1]), Number(found[2])] as const] : [];
  });
  const words = distinct(places.map(([length]) => length));
  const depths = distinct(places.map(([, depth]) => depth));
  if (words.length === 0) return null;
  const lengths = words.map((length) => ({ words: length, tokens: middle(depths.flatMap((depth) => tokens[cellName(length, depth)] ?? [])) }));
  const trained = typeof detail.trained_length === "number" && lengths.every((one) => one.tokens !== null) ? detail.trained_length : null;
  return {
    lengths,
    depths,
    cells: depths.map((depth) => words.map((length) => figures[cellName(length, depth)] ?? null)),
    trained,
    inside: trained === null ? 0 : lengths.filter((one) => (one.tokens ?? 0) <= trained).length,
  };
}

const distinct = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b);

function middle(values: readonly number[]): number | null {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? null;
}

/** "6/8, 41–93": right answers of n and the 95 % interval in per cent. Of several answers an item there are no whole ones: "n 8, 41–93". */
export function needleText({ value, low, high, items }: Figure): string {
  const right = Math.round(value * items);
  const counted = Math.abs(right - value * items) < 1e-6 ? `${right}/${items}` : `n ${items}`;
  const known = low !== null && low !== undefined && high !== null && high !== undefined;
  return `${counted}, ${known ? `${Math.round(100 * low)}–${Math.round(100 * high)}` : "no interval"}`;
}

type Detail = EvaluationOut["target_detail"];

/** Factor and positions of the YaRN that positions were turned by; null: without it. */
function yarnOf(detail: Detail): readonly [factor: number, positions: number] | null {
  const [factor = 1, positions = 0] = (textOf(detail.yarn) || textOf(detail.trained_yarn)).split("x").map(Number);
  return factor > 1 ? [factor, positions] : null;
}

/** "Without YaRN", "YaRN, 4 times 1,024 positions", and whether that is how it was trained. */
export function positionsText(detail: Detail): string {
  const yarn = yarnOf(detail);
  const said = yarn ? `YaRN, ${yarn[0]} times ${whole(yarn[1])} positions` : "Without YaRN";
  return detail.yarn ? said : `${said}, as trained`;
}

/** This evaluation and the newest of the same checkpoint for each other way of turning positions; without YaRN first. `others`: newest first. */
export function waysOf(evaluation: EvaluationOut, others: readonly EvaluationOut[]): EvaluationOut[] {
  const key = (one: EvaluationOut) => (yarnOf(one.target_detail) ?? [1, 0]).join("x");
  const found = new Map([[key(evaluation), evaluation]]);
  for (const other of others) {
    const isSame = Boolean(evaluation.target_detail.digest) && other.target_detail.digest === evaluation.target_detail.digest;
    if (isSame && !found.has(key(other)) && needleMap(other)) found.set(key(other), other);
  }
  return [...found.values()].sort((a, b) => (yarnOf(a.target_detail)?.[0] ?? 1) - (yarnOf(b.target_detail)?.[0] ?? 1));
}
