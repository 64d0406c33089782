import { countsOf, type Json, listOf, numberOf, recordsOf, textOf } from "@/lib/unknown";

/** A rollout as its page shows it. Pure. */

export type Piece = {
  readonly source: string;
  readonly text: string;
  readonly tokens: number;
  /** Of the policy that drew it; null for what the policy read. */
  readonly version: number | null;
  readonly temperature: number | null;
  readonly ending: string;
  readonly logprob: number | null;
};

export function piecesOf(row: Json): Piece[] {
  return recordsOf(row.segments).map((segment) => ({
    source: textOf(segment.source), text: textOf(segment.text), tokens: numberOf(segment.tokens) ?? 0, version: numberOf(segment.policy_version),
    temperature: numberOf(segment.temperature), ending: textOf(segment.ending), logprob: numberOf(segment.mean_logprob),
  }));
}

/** Of the policies that drew it, oldest first. */
export const versionsOf = (row: Json): number[] => [...new Set(listOf(row.versions).flatMap((version) => numberOf(version) ?? []))].sort((a, b) => a - b);

/** [name, value] of what the reward is made of, the largest first. */
export const componentsOf = (row: Json): [string, number][] => countsOf(row.components).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]) || a[0].localeCompare(b[0]));
