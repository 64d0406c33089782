import { describe, expect, it } from "vitest";

import { ceiling, cumulated, edges, labelled, type Layer } from "./stack-model";

const layer = (id: string, ...values: number[]): Layer => ({ id, label: id, color: "", values });

describe("stacked bars", () => {
  it("stand on each other", () => {
    expect(cumulated([layer("a", 1, 0, 3), layer("b", 2, 2, 0), layer("c", 0, 1, 1)])).toEqual([[1, 0, 3], [3, 2, 3], [3, 3, 4]]);
  });
  it("draw nothing where a layer adds nothing", () => {
    expect(edges([layer("a", 1, 0), layer("b", 0, 0), layer("c", 2, 0)])).toEqual([[1, null], [null, null], [3, null]]);
  });
  it("end below the axis, which is never empty", () => {
    expect(ceiling([layer("a", 50, 100)])).toBeCloseTo(106);
    expect([ceiling([]), ceiling([layer("a", 0)])]).toEqual([1, 1]);
  });
  it("are labelled as far as there is room, the last one always", () => {
    expect([labelled(3, 10), labelled(7, 3), labelled(0, 3)]).toEqual([[0, 1, 2], [0, 3, 6], []]);
  });
});
