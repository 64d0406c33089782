import { describe, expect, it } from "vitest";

import { Crowd } from "./crowd";

const here = (id: string, since: number, isHidden = false) => ({ kind: "here" as const, id, since, isHidden });

describe("Crowd", () => {
  it("has room for four streams, the latest ones", () => {
    const crowd = new Crowd();
    for (let i = 0; i < 8; i += 1) crowd.hear(here(`s${i}`, i), 100);
    expect(Array.from({ length: 8 }, (_, i) => crowd.hasRoomFor(`s${i}`, 100))).toEqual([false, false, false, false, true, true, true, true]);
  });
  it("prefers what somebody sees", () => {
    const crowd = new Crowd();
    for (let i = 0; i < 5; i += 1) crowd.hear(here(`s${i}`, i, i > 0), 100);
    expect(crowd.hasRoomFor("s0", 100)).toBe(true);
    expect(crowd.hasRoomFor("s1", 100)).toBe(false);
  });
  it("gives a place away that was left, or whose tab is silent", () => {
    const crowd = new Crowd();
    for (let i = 0; i < 5; i += 1) crowd.hear(here(`s${i}`, i), 100);
    crowd.hear({ ...here("s4", 4), kind: "gone" }, 100);
    expect(crowd.hasRoomFor("s0", 100)).toBe(true);
    crowd.hear(here("s4", 4), 100);
    expect(crowd.hasRoomFor("s0", 100)).toBe(false);
    crowd.hear(here("s0", 0), 60_000);
    expect(crowd.hasRoomFor("s0", 60_000)).toBe(true);
  });
});
