import { countsOf, type Json, numberOf, recordsOf, textOf } from "@/lib/unknown";

import type { Count } from "./corpus-shape";

/** What a catalogue of tools covers: counts by domain and server, and points of the map. Pure. */

export type Point = { readonly x: number; readonly y: number; readonly name: string; readonly group: string; readonly isReal: boolean };

/** `synthetic:finance/ledger` is of the domain finance; `mcp:server@1.0` of the server. */
export function groupOf(source: string): string {
  const [, kind = "", place = source] = /^([a-z]+):(.*)$/.exec(source) ?? [];
  if (kind === "synthetic") return place.split("/")[0] ?? place;
  return place.replace(/@[^@]*$/, "");
}

export const isReal = (source: string): boolean => !source.startsWith("synthetic:");

/** [real, synthetic]: tools by server and by domain, most first. */
export function coverageOf(catalogue: Json): [real: Count[], synthetic: Count[]] {
  const totals = [new Map<string, number>(), new Map<string, number>()] as const;
  for (const [source, count] of countsOf(catalogue.sources)) {
    const to = totals[isReal(source) ? 0 : 1];
    to.set(groupOf(source), (to.get(groupOf(source)) ?? 0) + count);
  }
  const ordered = (counts: Map<string, number>): Count[] => [...counts].sort((a, b) => b[1] - a[1]);
  return [ordered(totals[0]), ordered(totals[1])];
}

/** In a box of `size` by `size`, with a margin. */
export function pointsOf(coverage: Json, size: number): Point[] {
  const raw = recordsOf(coverage.points).flatMap((point): Point[] => {
    const [x, y, source] = [numberOf(point.x), numberOf(point.y), textOf(point.source)];
    return x === null || y === null ? [] : [{ x, y, name: textOf(point.name), group: groupOf(source), isReal: isReal(source) }];
  });
  const bounds = (values: readonly number[]) => [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), -Infinity)] as const;
  const [[left, right], [bottom, top]] = [bounds(raw.map(({ x }) => x)), bounds(raw.map(({ y }) => y))];
  const margin = 8;
  const place = (value: number, low: number, high: number) => margin + ((value - low) / (high - low || 1)) * (size - 2 * margin);
  return raw.map((point) => ({ ...point, x: place(point.x, left, right), y: size - place(point.y, bottom, top) }));
}
