import { describe, expect, it } from "vitest";

import { align, extent, type Line, valueAt, yRange } from "./model";

const line = (x: number[], y: (number | null)[], more: Partial<Line> = {}): Line => ({
  id: "a", label: "a", color: "", dash: [], x, y, low: y, high: y, raw: null, broken: [], isAbandoned: false, ...more,
});

describe("align", () => {
  it("draws through points that only another line has, and keeps gaps", () => {
    expect(align([line([0, 2], [1, null]), line([1, 2], [5, 6])])).toEqual([[0, 1, 2], [1, undefined, null], [undefined, 5, 6]]);
  });
});

describe("yRange", () => {
  it("holds every extremum of what is visible, not only the line", () => {
    const spiky = line([0, 1, 2], [1, 1, 1], { high: [1, 40, 1] });
    expect(yRange([spiky], [0, 2], false)[1]).toBeGreaterThanOrEqual(40);
    expect(yRange([spiky], [2, 2], false)[1]).toBeLessThan(40);
  });
  it("ignores what a log axis cannot show", () => {
    const [low] = yRange([line([0, 1], [-3, 2])], [0, 1], true);
    expect(low).toBeGreaterThan(0);
  });
  it("makes room for a mark that is near, not for one far away", () => {
    expect(yRange([line([0, 1], [50, 90])], [0, 1], false, [100])[1]).toBeGreaterThanOrEqual(100);
    expect(yRange([line([0, 1], [1, 2])], [0, 1], false, [100])[1]).toBeLessThan(3);
  });
});

describe("yRange without outliers", () => {
  it("lets a spike leave the picture and keeps everything else", () => {
    const values = Array.from({ length: 200 }, (_, i) => (i === 100 ? 1000 : 5 + Math.sin(i)));
    const [low, high] = yRange([line(values.map((_, i) => i), values)], [0, 199], false, [], true);
    expect(high).toBeLessThan(7);
    expect(low).toBeGreaterThan(3);
    expect(yRange([line(values.map((_, i) => i), values)], [0, 199], false)[1]).toBeGreaterThan(999);
  });
});

describe("extent", () => {
  it("is never empty", () => {
    expect(extent([])).toEqual([0, 1]);
    expect(extent([line([3], [1])])).toEqual([2.5, 3.5]);
  });
});

describe("valueAt", () => {
  it("is the last value at or before x", () => {
    const l = line([0, 10, 20], [1, 2, 3]);
    expect([valueAt(l, -1), valueAt(l, 0), valueAt(l, 19.9), valueAt(l, 99)]).toEqual([null, 1, 2, 3]);
  });
});
