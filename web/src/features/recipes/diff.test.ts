import { describe, expect, it } from "vitest";

import { diffOf, flatten } from "./diff";

describe("flatten", () => {
  it("keys stages by id", () => {
    expect([...flatten({ stage: [{ id: "pretrain", optimizer: { peak_lr: 0.002 } }] })]).toEqual([["stage.pretrain.optimizer.peak_lr", "0.002"]]);
  });
  it("keeps other lists whole", () => {
    expect(flatten({ sources: ["a", "b"] }).get("sources")).toBe('["a","b"]');
  });
});

describe("diffOf", () => {
  it("does not count another order of stages as a difference", () => {
    const a = flatten({ stage: [{ id: "x", n: 1 }, { id: "y", n: 2 }] });
    const b = flatten({ stage: [{ id: "y", n: 2 }, { id: "x", n: 1 }] });
    expect(diffOf([a, b]).filter((row) => row.differs)).toEqual([]);
  });
  it("shows changed and missing keys", () => {
    const rows = diffOf([flatten({ lr: 1, old: true }), flatten({ lr: 2, new: true })]);
    expect(rows).toEqual([
      { key: "lr", values: ["1", "2"], differs: true },
      { key: "new", values: [null, "true"], differs: true },
      { key: "old", values: ["true", null], differs: true },
    ]);
  });
  it("compares any number of recipes", () => {
    expect(diffOf([flatten({ a: 1 }), flatten({ a: 1 }), flatten({ a: 3 })])[0]).toEqual({ key: "a", values: ["1", "1", "3"], differs: true });
  });
});
