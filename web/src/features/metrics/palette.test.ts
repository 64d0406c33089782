import { describe, expect, it } from "vitest";

import { strokesOf } from "./palette";

const drawn = (ids: string[]) => [...strokesOf(ids).values()].map(({ color, dash }) => `${color} ${dash.join()}`);

describe("strokesOf", () => {
  it("gives every run a stroke of its own, up to twenty", () => {
    const ids = Array.from({ length: 20 }, (_, i) => `run${i}`);
    expect(new Set(drawn(ids)).size).toBe(20);
    expect(new Set([...strokesOf(ids.slice(0, 8)).values()].map(({ color }) => color)).size).toBeGreaterThan(4);
  });
  it("keeps a run's stroke when others come and go", () => {
    const ids = Array.from({ length: 8 }, (_, i) => `run${i}`);
    const before = strokesOf(ids);
    const after = strokesOf(["new", ...ids.slice(3)]);
    for (const id of ids.slice(3)) expect(after.get(id)).toEqual(before.get(id));
  });
  it("gives a run that comes back the stroke that it had, where it is free", () => {
    const first = drawn(["abcdefghij"]);
    strokesOf(["another"]);
    expect(drawn(["abcdefghij"])).toEqual(first);
  });
});
