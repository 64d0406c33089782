import type { SeriesOut } from "@/api";

/** Curves of many layers as one: the highest value at each step, with the extrema of all. Attempts stay apart. Pure. */
export function envelope(curves: readonly SeriesOut[], key: string): SeriesOut[] {
  const byAttempt = new Map<string, SeriesOut[]>();
  for (const curve of curves) byAttempt.set(curve.attempt_id, [...(byAttempt.get(curve.attempt_id) ?? []), curve]);
  return [...byAttempt.values()].map((layers) => highest(layers, key));
}

type Point = { readonly value: number | null; readonly low: number | null; readonly high: number | null; readonly mean: number | null; readonly at: number };

function highest(layers: readonly SeriesOut[], key: string): SeriesOut {
  const points = new Map<number, Point>();
  for (const layer of layers) {
    layer.steps.forEach((step, i) => {
      const known = points.get(step);
      const [value, low, high] = [layer.values[i] ?? null, layer.low[i] ?? null, layer.high[i] ?? null];
      const mean = layer.means[i] ?? null;
      points.set(step, {
        value: upper(known?.value ?? null, value),
        low: upper(known?.low ?? null, low),
        high: upper(known?.high ?? null, high),
        mean: upper(known?.mean ?? null, mean),
        at: layer.at[i] ?? known?.at ?? 0,
      });
    });
  }
  const steps = [...points.keys()].sort((a, b) => a - b);
  const column = <T>(pick: (point: Point) => T): T[] => steps.map((step) => pick(points.get(step) as Point));
  return {
    attempt_id: layers[0]?.attempt_id ?? "",
    stage_id: layers[0]?.stage_id ?? "",
    key,
    tier: Math.max(1, ...layers.map((layer) => layer.tier)),
    interval: Math.max(1, ...layers.map((layer) => layer.interval)),
    steps,
    values: column((point) => point.value),
    low: column((point) => point.low),
    high: column((point) => point.high),
    means: column((point) => point.mean),
    at: column((point) => point.at),
    non_finite: [...new Set(layers.flatMap((layer) => layer.non_finite))].sort((a, b) => a - b),
  };
}

const upper = (a: number | null, b: number | null): number | null => (a === null ? b : b === null ? a : Math.max(a, b));
