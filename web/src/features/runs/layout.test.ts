import { describe, expect, it } from "vitest";

import { columnsLayout, isChain, reduced } from "./layout";

describe("columnsLayout", () => {
  it("puts a chain into one row", () => {
    const { places, height } = columnsLayout([{ id: "a", needs: [] }, { id: "b", needs: ["a"] }, { id: "c", needs: ["b"] }]);
    expect([...places.values()].map((place) => place.y)).toEqual([0, 0, 0]);
    expect(height).toBe(54);
  });
  it("puts a stage right of everything it needs, and never two in one place", () => {
    const { places } = columnsLayout([{ id: "a", needs: [] }, { id: "b", needs: [] }, { id: "c", needs: ["a"] }, { id: "d", needs: ["b", "c"] }]);
    expect(places.get("d")?.x).toBeGreaterThan(places.get("c")?.x ?? Infinity);
    expect(new Set([...places.values()].map((place) => `${place.x} ${place.y}`)).size).toBe(4);
  });
});

describe("reduced", () => {
  it("draws no need that follows from another", () => {
    const stages = [{ id: "a", needs: [] }, { id: "b", needs: ["a"] }, { id: "c", needs: ["b", "a"] }, { id: "d", needs: ["a", "c"] }];
    expect(reduced(stages).map((stage) => stage.needs)).toEqual([[], ["a"], ["b"], ["c"]]);
  });
  it("keeps needs that do not follow", () => {
    const stages = [{ id: "a", needs: [] }, { id: "b", needs: [] }, { id: "c", needs: ["a", "b"] }];
    expect(reduced(stages)[2]?.needs).toEqual(["a", "b"]);
  });
});

describe("isChain", () => {
  it("knows a chain from a graph", () => {
    expect(isChain([{ id: "a", needs: [] }, { id: "b", needs: ["a"] }])).toBe(true);
    expect(isChain([{ id: "a", needs: [] }, { id: "b", needs: [] }])).toBe(false);
    expect(isChain([{ id: "a", needs: [] }, { id: "b", needs: ["a"] }, { id: "c", needs: ["a"] }])).toBe(false);
  });
});
