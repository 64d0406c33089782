/** report.json of an `evaluate` stage, as far as the page shows it. It was written by a stage, so nothing in it is taken for granted. Pure. */

import { isRecord, type Json, numberOf, recordsOf, textOf } from "@/lib/unknown";

export type Interval = { readonly value: number; readonly low: number; readonly high: number };
export type Domain = { readonly name: string; readonly documents: number; readonly bytes: number; readonly model: Interval; readonly ngram: Interval | null; readonly betterBy: Interval | null };
export type Relation = { readonly name: string; readonly items: number; readonly accuracy: Interval };
export type Report = {
  readonly step: number | null;
  readonly tokens: number | null;
  readonly ngramOrder: number | null;
  readonly domains: readonly Domain[];
  readonly cloze: { readonly items: number; readonly chance: number; readonly accuracy: Interval; readonly relations: readonly Relation[] } | null;
  readonly samples: readonly { readonly prompt: string; readonly text: string }[];
};

/** Null when it is no such report. */
export function readReport(raw: unknown): Report | null {
  if (!isRecord(raw) || !isRecord(raw.held_out)) return null;
  const domains = Object.entries(raw.held_out).flatMap(([name, entry]): Domain[] => {
    if (!isRecord(entry)) return [];
    const model = interval(entry.bits_per_byte);
    if (!model) return [];
    return [{ name, documents: numberOf(entry.documents) ?? 0, bytes: numberOf(entry.bytes) ?? 0, model, ngram: interval(entry.ngram_bits_per_byte), betterBy: interval(entry.better_by) }];
  });
  return {
    step: numberOf(raw.step),
    tokens: numberOf(raw.tokens),
    ngramOrder: numberOf(raw.ngram_order),
    domains: domains.sort((a, b) => Number(b.name === "all") - Number(a.name === "all")),
    cloze: isRecord(raw.cloze) ? readCloze(raw.cloze) : null,
    samples: recordsOf(raw.samples).map((sample) => ({ prompt: textOf(sample.prompt), text: textOf(sample.text) })),
  };
}

function readCloze(raw: Json): Report["cloze"] {
  const accuracy = interval(raw.accuracy);
  if (!accuracy) return null;
  const relations = Object.entries(isRecord(raw.relations) ? raw.relations : {}).flatMap(([name, entry]): Relation[] => {
    const mine = isRecord(entry) ? interval(entry.accuracy) : null;
    return mine && isRecord(entry) ? [{ name, items: numberOf(entry.items) ?? 0, accuracy: mine }] : [];
  });
  return { items: numberOf(raw.items) ?? 0, chance: numberOf(raw.chance) ?? 0, accuracy, relations };
}

function interval(raw: unknown): Interval | null {
  if (!isRecord(raw)) return null;
  const value = numberOf(raw.value);
  return value === null ? null : { value, low: numberOf(raw.low) ?? value, high: numberOf(raw.high) ?? value };
}
