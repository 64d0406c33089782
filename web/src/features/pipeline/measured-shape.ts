/** What a stage kept of one step's pipeline, beside what was planned. Pure. */

import { number, readTimeline, type Span, type Timeline } from "@/features/plan/layout-shape";
import { isRecord } from "@/lib/unknown";

export type Measured = {
  readonly step: number;
  /** Of the whole step: pipeline, optimizer, and what lies between. */
  readonly stepSeconds: number;
  readonly timeline: Timeline;
};

/** timeline.json of a stage; null when it is of another shape. */
export function readMeasured(raw: unknown): Measured | null {
  if (!isRecord(raw) || !Array.isArray(raw.ranks)) return null;
  return { step: number(raw.step), stepSeconds: number(raw.step_seconds), timeline: readTimeline(raw) };
}

/** The part of a schedule that is about the first micro-batches: what stands beside a plan that draws no more. */
export function firstOf(timeline: Timeline, microbatches: number): Timeline {
  if (microbatches >= timeline.microbatches) return timeline;
  const ranks = timeline.ranks.map((spans) => spans.filter(([, , microbatch]) => microbatch < microbatches));
  return { ...timeline, microbatches, seconds: Math.max(0, ...ranks.flat().map(([, , , , end]) => end)), ranks };
}

/** Chunks of layers on each rank. */
export function chunksOf({ ranks }: Timeline): number {
  return 1 + Math.floor(Math.max(0, ...ranks.flat().map(([, stage]) => stage)) / Math.max(1, ranks.length));
}

/** Share of the time in which a rank computes nothing, on average. */
export function idleOf({ ranks, seconds }: Timeline): number {
  const busy = ranks.flat().reduce((sum, [, , , start, end]) => sum + end - start, 0);
  return seconds > 0 && ranks.length > 0 ? 1 - busy / (seconds * ranks.length) : 0;
}

/** Mean seconds of an operation, over ranks, chunks and micro-batches; null where there is none. */
export function meanOf({ ranks }: Timeline, op: string): number | null {
  const found = ranks.flat().filter(([name]: Span) => name === op);
  return found.length > 0 ? found.reduce((sum, [, , , start, end]) => sum + end - start, 0) / found.length : null;
}

/** Pictures of about the same length have one axis; others would be a hair beside a beam. */
const ONE_AXIS = 4;
export const shareAxis = (a: number, b: number): boolean => Math.max(a, b) <= ONE_AXIS * Math.min(a, b);
