/** The answer of POST plan, as far as the page shows it. Pure. */

export type PlannedStage = {
  readonly id: string;
  readonly kind: string;
  readonly pool: string;
  readonly ranks: number;
  readonly warnings: readonly string[];
  readonly training: {
    readonly total: number;
    readonly active: number;
    readonly flopsPerToken: number;
    readonly tokens: number | null;
    readonly steps: number | null;
    readonly pipelineStages: number;
    readonly stateBytes: number | null;
    readonly activationBytes: number | null;
    readonly tokensPerSecond: number | null;
    readonly seconds: number | null;
    readonly device: string | null;
    readonly utilisation: number | null;
  } | null;
};

type Json = Record<string, unknown>;

export function readPlan(plan: unknown): { stages: PlannedStage[]; warnings: string[] } {
  const raw = record(plan);
  return { stages: list(raw.stages).map((stage) => readStage(record(stage))), warnings: strings(raw.warnings) };
}

function readStage(raw: Json): PlannedStage {
  return {
    id: String(raw.id ?? ""),
    kind: String(raw.kind ?? ""),
    pool: String(raw.pool ?? ""),
    ranks: number(raw.ranks) ?? 1,
    warnings: strings(raw.warnings),
    training: raw.training === undefined || raw.training === null ? null : readTraining(record(raw.training)),
  };
}

function readTraining(raw: Json): NonNullable<PlannedStage["training"]> {
  const parameters = record(raw.parameters);
  const assumptions = record(raw.assumptions);
  return {
    total: number(parameters.total) ?? 0,
    active: number(parameters.active) ?? 0,
    flopsPerToken: number(raw.flops_per_token) ?? 0,
    tokens: number(raw.tokens),
    steps: number(raw.steps),
    pipelineStages: list(raw.states).length,
    stateBytes: number(raw.middle_stage_bytes),
    activationBytes: number(raw.activation_bytes),
    tokensPerSecond: number(raw.tokens_per_second),
    seconds: number(raw.seconds),
    device: typeof assumptions.device === "string" ? assumptions.device : null,
    utilisation: number(assumptions.utilisation),
  };
}

const record = (raw: unknown): Json => (typeof raw === "object" && raw !== null && !Array.isArray(raw) ? (raw as Json) : {});
const list = (raw: unknown): unknown[] => (Array.isArray(raw) ? raw : []);
const number = (raw: unknown): number | null => (typeof raw === "number" && Number.isFinite(raw) ? raw : null);
const strings = (raw: unknown): string[] => list(raw).filter((item): item is string => typeof item === "string");
