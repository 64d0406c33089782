/** Recipes as flat key → value, and what differs between several. Pure. */

import { isRecord } from "@/lib/unknown";

export type Flat = ReadonlyMap<string, string>;
export type DiffRow = { readonly key: string; readonly values: readonly (string | null)[]; readonly differs: boolean };

/** `{stage: [{id: "a", model: {x: 1}}]}` → `stage.a.model.x = 1`: lists of things with ids are keyed by them, so that order does not count as a difference. */
export function flatten(value: unknown, prefix = ""): Map<string, string> {
  const out = new Map<string, string>();
  walk(value, prefix, out);
  return out;
}

/** Rows in key order; `null` where a recipe lacks the key. */
export function diffOf(recipes: readonly Flat[]): DiffRow[] {
  const keys = [...new Set(recipes.flatMap((recipe) => [...recipe.keys()]))].sort();
  return keys.map((key) => {
    const values = recipes.map((recipe) => recipe.get(key) ?? null);
    return { key, values, differs: values.some((value) => value !== values[0]) };
  });
}

function walk(value: unknown, prefix: string, out: Map<string, string>): void {
  const under = (key: string): string => (prefix ? `${prefix}.${key}` : key);
  if (Array.isArray(value)) {
    const named = value.every((item) => isRecord(item) && typeof item.id === "string");
    if (value.length > 0 && named) for (const item of value as Record<string, unknown>[]) walk(without(item, "id"), under(String(item.id)), out);
    else out.set(prefix, JSON.stringify(value));
  } else if (isRecord(value)) {
    const entries = Object.entries(value);
    if (entries.length === 0) out.set(prefix, "{}");
    for (const [key, inner] of entries) walk(inner, under(key), out);
  } else {
    out.set(prefix, typeof value === "string" ? value : JSON.stringify(value));
  }
}

function without(record: Record<string, unknown>, key: string): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([name]) => name !== key));
}
