import { describe, expect, it } from "vitest";

import type { Rubric, RubricSetOut } from "@/api";

import { EMPTY, isChanged } from "./draft";

const short: Rubric = { name: "short", kind: "human", text: "One sentence.", weight: 1, mandatory: false, check: null };
const kind: Rubric = { ...short, name: "kind", text: "Friendly words." };
const set = (version: number, rubrics: Rubric[]): RubricSetOut => ({ name: "support", version, rubrics, by: "member:ada", at: null });

describe("draft of rubrics", () => {
  it("may bring an old version back, and not the newest again", () => {
    const [first, second] = [set(1, [short]), set(2, [short, kind])];
    expect(isChanged(first.rubrics, second)).toBe(true);
    expect(isChanged(second.rubrics, second)).toBe(false);
  });
  it("of a new set is always new", () => {
    expect(isChanged([EMPTY], undefined)).toBe(true);
  });
});
