import { countsOf, type Json, numberOf, recordsOf, textOf } from "@/lib/unknown";

import { type Mark, type Span, spanOf, starts } from "./spans";

/** A row of noun `rewrites` as far as the page shows it. Pure. */

export type Fault = { readonly id: number; readonly kind: string; readonly layer: string; readonly detail: string; readonly source: Span | null; readonly text: Span | null };
export type Aligned = { readonly source: string; readonly text: string; readonly sourceStart: number; readonly textStart: number; readonly tries: number | null };
export type Rewrite = { readonly chunks: readonly Aligned[]; readonly faults: readonly Fault[]; readonly scores: readonly (readonly [string, number])[] };

export function readRewrite(row: Json): Rewrite {
  const faults = recordsOf(row.faults).map((fault, i): Fault => ({
    id: i + 1, kind: textOf(fault.kind), layer: textOf(fault.layer), detail: textOf(fault.detail), source: spanOf(fault.source_span), text: spanOf(fault.text_span),
  }));
  return { chunks: aligned(textOf(row.source_text), textOf(row.text), recordsOf(row.chunks)), faults, scores: countsOf(row.scores) };
}

/** Chunk beside chunk where both texts hold them in order; else the whole texts as one. */
function aligned(source: string, text: string, chunks: readonly Json[]): Aligned[] {
  const sources = chunks.map((chunk) => textOf(chunk.source));
  const texts = chunks.map((chunk) => textOf(chunk.text));
  const sourceStarts = starts(source, sources);
  const textStarts = starts(text, texts);
  if (chunks.length === 0 || !sourceStarts || !textStarts) return [{ source, text, sourceStart: 0, textStart: 0, tries: null }];
  const shown = chunks.map((chunk, i): Aligned => ({
    source: sources[i] ?? "", text: texts[i] ?? "", sourceStart: sourceStarts[i] ?? 0, textStart: textStarts[i] ?? 0, tries: numberOf(chunk.tries),
  }));
  // A rewrite ends with the first part that fails: what follows of the source is shown, too.
  const last = shown.at(-1);
  const end = last ? last.sourceStart + [...last.source].length : 0;
  const rest = [...source].slice(end).join("");
  return rest.trim() === "" ? shown : [...shown, { source: rest, text: "", sourceStart: end, textStart: [...text].length, tries: null }];
}

export const marksOf = (faults: readonly Fault[], side: "source" | "text"): Mark[] =>
  faults.flatMap((fault) => {
    const span = fault[side];
    return span ? [{ id: fault.id, span }] : [];
  });
