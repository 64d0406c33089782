import { describe, expect, it } from "vitest";

import type { RunSummary } from "@/api";

import { renewed } from "./pages";

const run = (id: string, progress = 0): RunSummary => ({ id, progress }) as RunSummary;
const page = (ids: string[], next_cursor: string | null = null) => ({ items: ids.map((id) => run(id)), next_cursor });
const idsOf = (pages: readonly { items: readonly RunSummary[] }[]) => pages.map(({ items }) => items.map(({ id }) => id));

describe("renewed", () => {
  it("replaces a single page, cursor and all", () => {
    expect(renewed([page(["b", "a"], "x")], page(["c", "b"], "y"), [])).toEqual([page(["c", "b"], "y")]);
  });
  it("loses no run that a new one pushed off the first page, and shows none twice", () => {
    const pages = [page(["d", "c"], "x"), page(["b", "a"])];
    expect(idsOf(renewed(pages, page(["e", "d"], "z"), []))).toEqual([["e", "d"], ["c", "b", "a"]]);
    expect(idsOf(renewed(pages, page(["b", "d"], "z"), []))).toEqual([["b", "d"], ["c", "a"]]);
  });
  it("keeps the cursor by which the next page was fetched", () => {
    expect(renewed([page(["b"], "x"), page(["a"], "w")], page(["c"], "z"), []).map((one) => one.next_cursor)).toEqual(["x", "w"]);
  });
  it("renews what active runs further down say", () => {
    const out = renewed([page(["b"], "x"), page(["a"])], page(["b"], "z"), [run("a", 0.5)]);
    expect(out[1]?.items[0]?.progress).toBe(0.5);
  });
});
