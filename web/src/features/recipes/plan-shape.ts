/** The answer of POST plan, as far as the page shows it. Pure. */

import { type Json, listOf, numberOf, recordOf } from "@/lib/unknown";

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
  readonly reinforcement: {
    readonly total: number;
    readonly active: number;
    readonly iterations: number;
    readonly steps: number;
    readonly trajectories: number;
    readonly tokensAtMost: number | null;
    readonly phaseBytes: readonly (readonly [string, number])[];
    readonly replicas: number;
    readonly replicaBytes: number | null;
  } | null;
};

export function readPlan(plan: unknown): { stages: PlannedStage[]; warnings: string[] } {
  const raw = recordOf(plan);
  return { stages: listOf(raw.stages).map((stage) => readStage(recordOf(stage))), warnings: strings(raw.warnings) };
}

function readStage(raw: Json): PlannedStage {
  return {
    id: String(raw.id ?? ""),
    kind: String(raw.kind ?? ""),
    pool: String(raw.pool ?? ""),
    ranks: numberOf(raw.ranks) ?? 1,
    warnings: strings(raw.warnings),
    training: raw.training === undefined || raw.training === null ? null : readTraining(recordOf(raw.training)),
    reinforcement:
      raw.reinforcement === undefined || raw.reinforcement === null ? null : readReinforcement(recordOf(raw.reinforcement)),
  };
}

function readTraining(raw: Json): NonNullable<PlannedStage["training"]> {
  const parameters = recordOf(raw.parameters);
  const assumptions = recordOf(raw.assumptions);
  return {
    total: numberOf(parameters.total) ?? 0,
    active: numberOf(parameters.active) ?? 0,
    flopsPerToken: numberOf(raw.flops_per_token) ?? 0,
    tokens: numberOf(raw.tokens),
    steps: numberOf(raw.steps),
    pipelineStages: listOf(raw.states).length,
    stateBytes: numberOf(raw.middle_stage_bytes),
    activationBytes: numberOf(raw.activation_bytes),
    tokensPerSecond: numberOf(raw.tokens_per_second),
    seconds: numberOf(raw.seconds),
    device: typeof assumptions.device === "string" ? assumptions.device : null,
    utilisation: numberOf(assumptions.utilisation),
  };
}

function readReinforcement(raw: Json): NonNullable<PlannedStage["reinforcement"]> {
  return {
    total: numberOf(raw.parameters) ?? 0,
    active: numberOf(raw.active) ?? 0,
    iterations: numberOf(raw.iterations) ?? 0,
    steps: numberOf(raw.steps) ?? 0,
    trajectories: numberOf(raw.trajectories_per_iteration) ?? 0,
    tokensAtMost: numberOf(raw.tokens_per_iteration_most),
    phaseBytes: Object.entries(recordOf(raw.phase_bytes)).map(([name, size]) => [name, numberOf(size) ?? 0] as const),
    replicas: numberOf(raw.replicas) ?? 1,
    replicaBytes: numberOf(raw.replica_bytes),
  };
}

const strings = (raw: unknown): string[] => listOf(raw).filter((item): item is string => typeof item === "string");
