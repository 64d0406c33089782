import { describe, expect, it } from "vitest";

import { columnsLayout, isChain, reduced } from "./layout";
import { blocksOf, membersPlaced } from "./twins";

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

describe("blocksOf", () => {
  const trained = Array.from({ length: 9 }, (_, i) => ({ id: `t${i}`, needs: ["data"] }));
  const study = [{ id: "data", needs: [] }, ...trained, { id: "compare", needs: trained.map((stage) => stage.id) }];
  it("gathers stages that need the same and are needed by the same, and lays them out as one", () => {
    const blocks = blocksOf(study);
    expect(blocks.map((block) => [block.id, block.needs, block.members.length])).toEqual([["data", [], 1], ["t0 and 8 more", ["data"], 9], ["compare", ["t0 and 8 more"], 1]]);
    expect(isChain(blocks)).toBe(true);
    const placed = columnsLayout(blocks);
    const places = membersPlaced(blocks, placed);
    expect(new Set([...places.values()].map((place) => `${place.x} ${place.y}`)).size).toBe(11);
    expect(placed.height).toBeLessThan(9 * 54);
    const rightmost = Math.max(...trained.map(({ id }) => (places.get(id)?.x ?? Infinity) + 168));
    expect(places.get("compare")?.x).toBeGreaterThan(rightmost);
  });
  it("leaves a few, and those of which each is needed by another, as they are", () => {
    const few = [{ id: "data", needs: [] }, ...trained.slice(0, 5), { id: "compare", needs: ["t0", "t1", "t2", "t3", "t4"] }];
    expect(blocksOf(few).map((block) => block.id)).toEqual(few.map((stage) => stage.id));
    const chains = [...trained, ...trained.map(({ id }) => ({ id: `ask-${id}`, needs: [id] }))];
    expect(blocksOf(chains).map((block) => block.members.length)).toEqual(chains.map(() => 1));
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
