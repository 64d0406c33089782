/** The state of every view, as it stands in the address. What is not valid is dropped; defaults are not written. */

import type { By, NodeState, RunState } from "@/api";
import { PRESETS, readDay, type RangeSearch } from "@/features/usage/range";

type Raw = Record<string, unknown>;

export type XAxis = "step" | "tokens" | "time";
export type CurveSearch = {
  /** Default: step. */
  x?: XAxis;
  /** Weight of the moving average, 0 to 0.99. */
  smooth?: number;
  log?: boolean;
  /** Vertical axes leave the highest and lowest 2 % out. */
  robust?: boolean;
  /** "from,to" in units of x. */
  zoom?: string;
  /** "panel:log=1", "panel:smooth=0.9" or "panel:large=1" where a panel differs from the page, separated by spaces. */
  panels?: string;
};

export type RunsSearch = { q?: string; state?: RunState[]; sort?: SortKey; asc?: boolean; sel?: string[] };
export type SortKey = "name" | "state" | "loss" | "bpb" | "took" | "created";
export const RUN_TABS = ["curves", "logs", "artifacts", "report", "attempts", "recipe", "critic", "pipeline", "study"] as const;
export type RunTab = (typeof RUN_TABS)[number];
export type RunSearch = CurveSearch & { tab?: RunTab; stage?: string; attempt?: string; rank?: number; line?: number; find?: string; artifact?: string };
export const POOL_TABS = ["queue", "nodes", "usage"] as const;
export type PoolTab = (typeof POOL_TABS)[number];
export type UsageSearch = RangeSearch & { by?: By };
export type PoolSearch = UsageSearch & { tab?: PoolTab; state?: NodeState[]; node?: string };
export type CompareSearch = CurveSearch & { runs?: string[]; base?: string; stage?: string; all?: boolean };
export type DataSearch = { run?: string };
/** `tab` is a noun of the artifact, or one of the page's own. `row`: position of the one that is open; `where`: conditions "key:value". */
export type DatasetSearch = { tab?: string; fate?: string[]; q?: string; where?: string[]; row?: string };
export type RubricsSearch = { name?: string; version?: number };
export type EvaluationsSearch = { q?: string; recipe?: string; run?: string; sort?: string; asc?: boolean; paper?: "instruct" | "base"; all?: boolean };
export const ANSWER_KINDS = ["right", "wrong", "truncated", "infrastructure", "other"] as const;
export type AnswerKind = (typeof ANSWER_KINDS)[number];
export const EVALUATION_TABS = ["needles", "answers", "against"] as const;
export type EvaluationTab = (typeof EVALUATION_TABS)[number];
/** `row`: position of the answer that is open; `against`: the evaluation that it is compared with, `item`: the one that is open there. */
export type EvaluationSearch = { tab?: EvaluationTab; only?: AnswerKind; q?: string; where?: string[]; row?: string; against?: string; item?: string };
export type NewRunSearch = { from?: string; recipe?: string };
export type PlanSearch = { recipe?: string; nodes?: number; price?: number; sweep?: boolean };

const STATES: readonly RunState[] = ["pending", "running", "cancelling", "interrupted", "succeeded", "failed", "cancelled"];
const NODE_STATES: readonly NodeState[] = ["ready", "suspect", "lost", "quarantined", "draining", "drained"];
const GROUPS: readonly By[] = ["project", "cause", "pool", "day", "run"];
const SORTS: readonly SortKey[] = ["name", "state", "loss", "bpb", "took", "created"];

export function readRunsSearch(raw: Raw): RunsSearch {
  return clean({ q: text(raw.q), state: many(raw.state, oneOf(STATES)), sort: oneOf(SORTS)(raw.sort), asc: flag(raw.asc), sel: many(raw.sel, text) });
}

export function readRunSearch(raw: Raw): RunSearch {
  return clean({
    ...readCurveSearch(raw),
    tab: oneOf(RUN_TABS)(raw.tab),
    stage: text(raw.stage),
    attempt: text(raw.attempt),
    rank: natural(raw.rank),
    line: natural(raw.line),
    find: text(raw.find),
    artifact: text(raw.artifact),
  });
}

export const readPoolSearch = (raw: Raw): PoolSearch => clean({ ...readUsageSearch(raw), tab: oneOf(POOL_TABS)(raw.tab), state: many(raw.state, oneOf(NODE_STATES)), node: text(raw.node) });

export function readUsageSearch(raw: Raw): UsageSearch {
  return clean({ days: PRESETS.find((days) => days === raw.days), from: readDay(raw.from), to: readDay(raw.to), by: oneOf(GROUPS)(raw.by) });
}

export function readCompareSearch(raw: Raw): CompareSearch {
  return clean({ ...readCurveSearch(raw), runs: many(raw.runs, text), base: text(raw.base), stage: text(raw.stage), all: flag(raw.all) });
}

export const readEvaluationsSearch = (raw: Raw): EvaluationsSearch =>
  clean({ q: text(raw.q), recipe: text(raw.recipe), run: text(raw.run), sort: text(raw.sort), asc: flag(raw.asc), paper: oneOf(["instruct", "base"] as const)(raw.paper), all: flag(raw.all) });

export const readEvaluationSearch = (raw: Raw): EvaluationSearch =>
  clean({ tab: oneOf(EVALUATION_TABS)(raw.tab), only: oneOf(ANSWER_KINDS)(raw.only), q: text(raw.q), where: many(raw.where, condition), row: text(raw.row), against: text(raw.against), item: text(raw.item) });

export const readNewRunSearch = (raw: Raw): NewRunSearch => clean({ from: text(raw.from), recipe: text(raw.recipe) });

export const readPlanSearch = (raw: Raw): PlanSearch => clean({ recipe: text(raw.recipe), nodes: natural(raw.nodes) || undefined, price: amount(raw.price), sweep: flag(raw.sweep) });

export const readRubricsSearch = (raw: Raw): RubricsSearch => clean({ name: text(raw.name), version: natural(raw.version) });

export const readDataSearch = (raw: Raw): DataSearch => clean({ run: text(raw.run) });

export const readDatasetSearch = (raw: Raw): DatasetSearch =>
  clean({ tab: text(raw.tab), fate: many(raw.fate, text), q: text(raw.q), where: many(raw.where, condition), row: text(raw.row) });

function readCurveSearch(raw: Raw): CurveSearch {
  const smooth = typeof raw.smooth === "number" && raw.smooth > 0 && raw.smooth < 1 ? raw.smooth : undefined;
  return clean({ x: oneOf(["tokens", "time"] as const)(raw.x), smooth, log: flag(raw.log), robust: flag(raw.robust), zoom: text(raw.zoom), panels: text(raw.panels) });
}

const text = (value: unknown): string | undefined => (typeof value === "string" || typeof value === "number" ? String(value) || undefined : undefined);
const flag = (value: unknown): true | undefined => (value === true ? true : undefined);
const natural = (value: unknown): number | undefined => (typeof value === "number" && Number.isInteger(value) && value >= 0 ? value : undefined);
const amount = (value: unknown): number | undefined => (typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : undefined);

const condition = (value: unknown): string | undefined => (typeof value === "string" && /^[A-Za-z0-9_.-]{1,100}:/.test(value) ? value : undefined);

const oneOf =
  <T extends string>(allowed: readonly T[]) =>
  (value: unknown): T | undefined =>
    allowed.find((item) => item === value);

function many<T>(value: unknown, read: (item: unknown) => T | undefined): T[] | undefined {
  const items = (Array.isArray(value) ? value : [value]).map(read).filter((item): item is T => item !== undefined);
  return items.length > 0 ? [...new Set(items)] : undefined;
}

type Cleaned<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** What was dropped stays as `undefined`: the router lays this over the raw address, and only a key that is there hides the raw value. */
const clean = <T extends object>(search: T): Cleaned<T> => search as Cleaned<T>;
