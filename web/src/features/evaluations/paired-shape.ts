import type { ItemPair, PairedOut } from "@/api";

import { hundredths } from "./board-shape";

/** Two evaluations compared, in words. Pure. */

/** Beyond this nobody calls a difference chance. */
export const SIGNIFICANT = 0.05;

const points = (value: number): string => (value > 0 ? `+${hundredths(value)}` : value < 0 ? `−${hundredths(-value)}` : "±0.0");

/** "+40.0 points on 5 items that both have a score of (95 % interval −28.0 to +100.0)". */
export function differenceText({ items, difference, low, high }: PairedOut): string {
  if (difference === null) return "No item that both have a score of";
  const told = low === null || high === null ? "too few for an interval, or all differ alike" : `95 % interval ${points(low)} to ${points(high)}`;
  return `${points(difference)} points on ${items} ${items === 1 ? "item" : "items"} that both have a score of (${told})`;
}

export function significanceText({ p_value: p, better, worse }: PairedOut): string {
  const told = p < 0.001 ? "p < 0.001" : `p = ${Number(p.toPrecision(2))}`;
  return `${better} better, ${worse} worse: ${told} (exact sign test), ${p < SIGNIFICANT ? "significant" : "not significant"}`;
}

export type Side = "all" | "lost" | "won";

/** Lost: the other had a higher score. */
export const ofSide = (changed: readonly ItemPair[], side: Side): ItemPair[] => changed.filter(({ a, b }) => side === "all" || (side === "lost" ? b < a : b > a));
