/** The layout of a training stage in the answer of POST plan, as far as the page shows it. Pure. */

import { isRecord, type Json, listOf, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

export type RankPlan = {
  readonly rank: number;
  readonly layers: readonly number[];
  readonly parameters: number;
  readonly states: number;
  readonly optimizer: number;
  readonly optimizerOn: string;
  readonly inFlightChunks: number;
  readonly inFlight: number;
  readonly resident: number;
  readonly device: number;
  readonly host: number;
};
export type Span = readonly [op: string, stage: number, microbatch: number, start: number, end: number];
export type Timeline = { readonly microbatches: number; readonly of: number; readonly seconds: number; readonly ranks: readonly (readonly Span[])[] };
export type Candidate = {
  readonly pp: number;
  readonly vpp: number;
  readonly ep: number;
  readonly activations: string;
  readonly optimizerOn: string;
  readonly device: number;
  readonly bubble: number;
  readonly idle: number;
  readonly seconds: number;
  readonly mfu: number;
  readonly days: number | null;
  readonly cost: number | null;
};
export type Layout = {
  readonly stage: string;
  readonly refusals: readonly string[];
  readonly wouldFit: string | null;
  readonly raw: Json;
  readonly nodes: number;
  readonly ranks: number;
  readonly ranksPerNode: number;
  readonly pp: number;
  readonly vpp: number;
  readonly ep: number;
  readonly memoryBytes: number | null;
  readonly device: string;
  readonly source: string;
  readonly byRank: readonly RankPlan[];
  readonly timeline: Timeline | null;
  readonly sweep: { readonly tried: number; readonly refused: number; readonly ranked: readonly Candidate[] } | null;
};

/** Of every training stage of the plan. */
export function readLayouts(plan: unknown): Layout[] {
  return recordsOf(recordOf(plan).stages).flatMap((stage) => {
    const training = recordOf(stage.training);
    return isRecord(training.layout) ? [readLayout(textOf(stage.id), training.layout, recordOf(training.assumptions))] : [];
  });
}

function readLayout(stage: string, raw: Json, assumed: Json): Layout {
  return {
    stage,
    raw,
    refusals: listOf(raw.refusals).map(textOf),
    wouldFit: textOf(raw.would_fit) || null,
    nodes: number(raw.nodes),
    ranks: number(raw.ranks),
    ranksPerNode: number(raw.ranks_per_node),
    pp: number(raw.pp),
    vpp: number(raw.vpp),
    ep: number(raw.ep),
    memoryBytes: numberOf(assumed.memory_bytes),
    device: textOf(assumed.device),
    source: textOf(assumed.source),
    byRank: recordsOf(raw.by_rank).map(readRank),
    timeline: isRecord(raw.timeline) ? readTimeline(raw.timeline) : null,
    sweep: isRecord(raw.sweep) ? readSweep(raw.sweep) : null,
  };
}

function readRank(raw: Json): RankPlan {
  return {
    rank: number(raw.rank),
    layers: listOf(raw.layers).map(number),
    parameters: number(raw.parameters),
    states: number(raw.state_bytes),
    optimizer: number(raw.optimizer_bytes),
    optimizerOn: textOf(raw.optimizer_on),
    inFlightChunks: number(raw.in_flight_chunks),
    inFlight: number(raw.in_flight_bytes),
    resident: number(raw.resident_bytes),
    device: number(raw.device_bytes),
    host: number(raw.host_bytes),
  };
}

export function readTimeline(raw: Json): Timeline {
  return {
    microbatches: number(raw.microbatches),
    of: number(raw.of),
    seconds: number(raw.seconds),
    ranks: listOf(raw.ranks).map((spans) => listOf(spans).map((span) => readSpan(listOf(span)))),
  };
}

const readSpan = ([op, stage, microbatch, start, end]: readonly unknown[]): Span => [textOf(op), number(stage), number(microbatch), number(start), number(end)];

function readSweep(raw: Json): NonNullable<Layout["sweep"]> {
  return {
    tried: number(raw.tried),
    refused: Object.values(recordOf(raw.refused)).reduce<number>((sum, count) => sum + number(count), 0),
    ranked: recordsOf(raw.ranked).map((one) => ({
      pp: number(one.pp),
      vpp: number(one.vpp),
      ep: number(one.ep),
      activations: textOf(one.activations),
      optimizerOn: textOf(one.optimizer_on),
      device: number(one.device_bytes),
      bubble: number(one.bubble),
      idle: number(one.idle),
      seconds: number(one.seconds),
      mfu: number(one.mfu),
      days: numberOf(one.days),
      cost: numberOf(one.cost),
    })),
  };
}

export const number = (raw: unknown): number => numberOf(raw) ?? 0;

/** The span under a point of the picture; null between spans. */
export function spanAt(timeline: Timeline, rank: number, seconds: number): Span | null {
  return timeline.ranks[rank]?.find(([, , , start, end]) => start <= seconds && seconds < end) ?? null;
}

/** Round numbers from 0 on, five to ten of them, none beyond `until`. */
export function ticksOf(until: number): number[] {
  if (!(until > 0)) return [0];
  const size = 10 ** Math.floor(Math.log10(until / 5));
  const step = size * ([1, 2, 5].find((factor) => until / (size * factor) <= 10) ?? 10);
  return Array.from({ length: Math.floor(until / step + 1e-9) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}
