/** comparison.json of a stage that compares arms, as far as the page shows it. A stage wrote it, so nothing in it is taken for granted. Pure. */

import { isRecord, type Json, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

export type Figure = { readonly value: number; readonly low: number | null; readonly high: number | null };
export type Point = { readonly tokens: number; readonly flops: number; readonly loss: Figure; readonly logit: number | null };
export type LossArm = { readonly label: string; readonly parameters: number; readonly active: number; readonly points: readonly Point[] };
export type Claim = { readonly claim: string; readonly ours: string; readonly verdict: string };
export type Study = {
  readonly title: string;
  readonly paper: { readonly section: string; readonly finding: string; readonly conditions: string } | null;
  readonly claims: readonly Claim[];
  /** Of losses; of questions the picture says all. */
  readonly arms: readonly LossArm[];
  readonly seeds: number;
};

/** Null when it is no such comparison. */
export function readStudy(raw: unknown): Study | null {
  if (!isRecord(raw) || !isRecord(raw.arms)) return null;
  const paper = isRecord(raw.study) ? { section: textOf(raw.study.section), finding: textOf(raw.study.finding), conditions: textOf(raw.study.conditions) } : null;
  const claims = recordsOf(raw.claims).map((one) => ({ claim: textOf(one.claim), ours: textOf(one.ours), verdict: textOf(one.verdict) }));
  const arms = raw.measure === "loss" ? Object.values(raw.arms).map(recordOf).map(lossArm) : [];
  return { title: textOf(raw.title) || "Arms compared", paper, claims, arms, seeds: numberOf(raw.seeds) ?? 0 };
}

function lossArm(raw: Json): LossArm {
  const points = recordsOf(raw.points).flatMap((one): Point[] => {
    const loss = figureOf(one);
    const [tokens, flops] = [numberOf(one.tokens), numberOf(one.flops)];
    return loss && tokens !== null && flops !== null ? [{ tokens, flops, loss, logit: figureOf(one.max_logit)?.value ?? null }] : [];
  });
  return { label: textOf(raw.label), parameters: numberOf(raw.parameters) ?? 0, active: numberOf(raw.active_parameters) ?? 0, points };
}

function figureOf(raw: unknown): Figure | null {
  const { value, low, high } = recordOf(raw);
  const known = numberOf(value);
  return known === null ? null : { value: known, low: numberOf(low), high: numberOf(high) };
}

/** "4.12 [4.08, 4.16]"; of one seed without an interval. */
export const lossText = ({ value, low, high }: Figure): string => (low === null || high === null ? value.toFixed(3) : `${value.toFixed(3)} [${low.toFixed(3)}, ${high.toFixed(3)}]`);
