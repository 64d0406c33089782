import type { Causes, Hours, UsageOut, UsageRow } from "@/api";
import type { Layer } from "@/components/charts/stack-model";

/** Where held time went, in words and colours. Pure. */

export type Cause = keyof Causes;
export type Unit = keyof Hours;

/** Stacked in this order: what was wanted at the bottom, what was lost at the top. */
export const CAUSES: readonly { readonly id: Cause; readonly title: string; readonly color: string; readonly about: string }[] = [
  { id: "train", title: "Work", color: "var(--curve-1)", about: "The stage's own work: steps of training, documents, evaluations" },
  { id: "checkpoint", title: "Saving", color: "var(--curve-3)", about: "Checkpoints, and committing what the stage made" },
  { id: "start_up", title: "Starting", color: "var(--curve-7)", about: "From being given its place to the first work: image, loading, set-up" },
  { id: "idle", title: "Idle", color: "var(--curve-8)", about: "Held, and nobody works: ranks that wait for others, a node that is gone" },
  { id: "hang", title: "Hang", color: "var(--curve-4)", about: "From a stalled rank's last sign of progress until that was noticed" },
  { id: "lost_work", title: "Lost work", color: "var(--bad)", about: "Work after the last checkpoint of an attempt that ended badly" },
];

export const UNIT_NAMES: Record<Unit, string> = { gpu: "GPU-hours", cpu: "CPU-hours" };

/** GPU-hours where there were any, held or waited for; else CPU-hours. */
export const unitOf = ({ total }: UsageOut): Unit => (total.held.gpu > 0 || total.queue.gpu > 0 ? "gpu" : "cpu");

/** Days from first to last, inclusive. */
export function daysBetween(from: string, to: string): string[] {
  const days: string[] = [];
  for (let at = Date.parse(from); at <= Date.parse(to); at += 86_400_000) days.push(new Date(at).toISOString().slice(0, 10));
  return days;
}

/** A layer for each cause that took any time, over all days of the range; days without use are empty bars. */
export function layersOf(byDay: UsageOut, unit: Unit): { days: string[]; layers: Layer[] } {
  const days = daysBetween(byDay.from_day, byDay.to_day);
  const rows = new Map(byDay.items.map((row) => [row.key, row]));
  const layers = CAUSES.filter(({ id }) => byDay.total.causes[id][unit] > 0).map(({ id, title, color }): Layer => ({
    id, label: title, color, values: days.map((day) => rows.get(day)?.causes[id][unit] ?? 0),
  }));
  return { days, layers };
}

/** "26 Nov", as the bars are labelled. */
export const dayName = (day: string): string => `${Number(day.slice(8))} ${MONTHS[Number(day.slice(5, 7)) - 1]}`;

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** 0.04 → "0.04", 12.345 → "12.3", 12345.6 → "12,346"; nothing is a dash. */
export function hours(value: number): string {
  if (value === 0) return "–";
  if (value < 0.005) return "<0.01";
  return value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : value < 1000 ? 1 : 0 });
}

/** Share of the held time that was work, of the unit that is shown. */
export const goodputOf = (row: UsageRow, unit: Unit): number | null => (row.held[unit] > 0 ? row.causes.train[unit] / row.held[unit] : null);
