/** Which days are looked at: as many as the address says up to today, or from one day to another. Pure. */

export const PRESETS = [7, 30, 90] as const;
export type Preset = (typeof PRESETS)[number];
export const DEFAULT_DAYS: Preset = 30;

export type RangeSearch = { days?: Preset; from?: string; to?: string };
export type DayRange = { readonly from: string; readonly to: string; readonly preset: Preset | null };

const DAY = /^\d{4}-\d{2}-\d{2}$/;

/** A day such as 2026-11-26, in UTC; anything else is none. */
export const readDay = (value: unknown): string | undefined => (typeof value === "string" && DAY.test(value) && new Date(value).toString() !== "Invalid Date" ? value : undefined);

export function rangeOf({ days, from, to }: RangeSearch, now: number): DayRange {
  if (from && to) return from <= to ? { from, to, preset: null } : { from: to, to: from, preset: null };
  const preset = days ?? DEFAULT_DAYS;
  return { from: dayOf(now - (preset - 1) * 86_400_000), to: dayOf(now), preset };
}

export const dayOf = (time: number): string => new Date(time).toISOString().slice(0, 10);
