import type { Rubric, RubricSetOut } from "@/api";

/** A set of rubrics as somebody edits it. Pure. */

export const EMPTY: Rubric = { name: "", kind: "human", text: "", weight: 1, mandatory: false, check: null };
const NAME = /^[a-z0-9][a-z0-9_]{0,39}$/;
export const SET_NAME = /^[a-z0-9][a-z0-9-]{0,39}$/;

/** What keeps it from being saved, in words; null: nothing. */
export function faultOf(rubrics: readonly Rubric[]): string | null {
  if (rubrics.length === 0) return "A critic needs a rubric at least.";
  const names = new Set<string>();
  for (const rubric of rubrics) {
    if (!NAME.test(rubric.name)) return `“${rubric.name}” is no name: small letters, digits and _, forty at most.`;
    if (names.has(rubric.name)) return `Two are called ${rubric.name}.`;
    if (!rubric.text.trim()) return `${rubric.name} says nothing.`;
    if (!((rubric.weight ?? 1) > 0)) return `The weight of ${rubric.name} is not above 0.`;
    names.add(rubric.name);
  }
  return null;
}

/** Against the newest, not what it was made from: an old version may come back as it was. */
export const isChanged = (draft: readonly Rubric[], newest: RubricSetOut | undefined): boolean => JSON.stringify(draft) !== JSON.stringify(newest?.rubrics ?? []);

/** The newest first. */
export const versionsOf = (newest: number): number[] => Array.from({ length: newest }, (_, i) => newest - i);
