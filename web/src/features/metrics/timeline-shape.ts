import type { SeriesOut } from "@/api";

import { stitch } from "./merge";
import { CAUSES } from "./panels";

type Cause = (typeof CAUSES)[number];

/** Iterations `from` to `to`, beside each other, with seconds by cause. */
export type Column = { readonly from: number; readonly to: number; readonly seconds: Readonly<Record<Cause, number>>; readonly total: number };

/** Neighbours are put together until there are `most` columns at most; attempts that were given up count nowhere. Pure. */
export function columnsOf(curves: readonly SeriesOut[], most: number): Column[] {
  const rows = new Map<number, Record<Cause, number>>();
  for (const cause of CAUSES) {
    const { curve } = stitch(curves.filter((one) => one.key === `time/${cause}`));
    curve?.steps.forEach((step, i) => {
      const row = rows.get(step) ?? nothing();
      // A coarse point stands for as many iterations as its tier; its mean is theirs.
      row[cause] += (curve.means[i] ?? 0) * Math.max(1, curve.tier);
      rows.set(step, row);
    });
  }
  const steps = [...rows.keys()].sort((a, b) => a - b);
  const size = Math.max(1, Math.ceil(steps.length / most));
  const columns: Column[] = [];
  for (let at = 0; at < steps.length; at += size) {
    const mine = steps.slice(at, at + size);
    const seconds = nothing();
    for (const step of mine) for (const cause of CAUSES) seconds[cause] += rows.get(step)?.[cause] ?? 0;
    columns.push({ from: mine[0] as number, to: mine.at(-1) as number, seconds, total: sumOf(seconds) });
  }
  return columns;
}

/** [cause, seconds, share] of all columns, those that took any time. */
export function totalsOf(columns: readonly Column[]): [cause: Cause, seconds: number, share: number][] {
  const all = columns.reduce((sum, column) => sum + column.total, 0);
  return CAUSES.map((cause): [Cause, number, number] => {
    const seconds = columns.reduce((sum, column) => sum + column.seconds[cause], 0);
    return [cause, seconds, all > 0 ? seconds / all : 0];
  }).filter(([, seconds]) => seconds > 0);
}

const nothing = (): Record<Cause, number> => Object.fromEntries(CAUSES.map((cause) => [cause, 0])) as Record<Cause, number>;
const sumOf = (seconds: Readonly<Record<Cause, number>>): number => CAUSES.reduce((sum, cause) => sum + seconds[cause], 0);
