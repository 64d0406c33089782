/** Values of JSON that some program wrote: nothing about them is taken for granted. Pure. */

export type Json = Record<string, unknown>;

export const isRecord = (raw: unknown): raw is Json => typeof raw === "object" && raw !== null && !Array.isArray(raw);
export const recordOf = (raw: unknown): Json => (isRecord(raw) ? raw : {});
export const listOf = (raw: unknown): readonly unknown[] => (Array.isArray(raw) ? raw : []);
export const recordsOf = (raw: unknown): Json[] => listOf(raw).filter(isRecord);
export const numberOf = (raw: unknown): number | null => (typeof raw === "number" && Number.isFinite(raw) ? raw : null);
export const textOf = (raw: unknown): string => (typeof raw === "string" ? raw : "");

/** {name: number} of what is a number. */
export function countsOf(raw: unknown): [name: string, count: number][] {
  return Object.entries(recordOf(raw)).filter((entry): entry is [string, number] => numberOf(entry[1]) !== null);
}

/** A value as people read it in one line: texts as they are, the rest as JSON. */
export const written = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));
