import { describe, expect, it } from "vitest";

import type { LogPage } from "@/api";

import { append, EMPTY, isAtEnd, isAtStart, prepend } from "./buffer";

const page = (offsets: number[], next: number, more: Partial<LogPage> = {}): LogPage => ({
  attempt_id: "a", rank: 0, lines: offsets.map((offset) => ({ offset, text: `at ${offset}` })), next_offset: next, end_offset: next, complete: false, ...more,
});

describe("log buffer", () => {
  it("appends each line once, also when a reconnect sends some again", () => {
    const once = append(EMPTY, page([0, 10, 20], 30));
    expect(append(once, page([20, 30], 40)).lines.map((line) => line.offset)).toEqual([0, 10, 20, 30]);
  });
  it("prepends what lies before, each line once", () => {
    const tail = append(EMPTY, page([100, 110], 120));
    const more = prepend(tail, page([60, 80, 100], 110));
    expect(more.lines.map((line) => line.offset)).toEqual([60, 80, 100, 110]);
    expect(isAtStart(more)).toBe(false);
    expect(isAtStart(prepend(more, page([0, 30], 60)))).toBe(true);
  });
  it("takes no earlier page that would leave a hole", () => {
    const tail = append(EMPTY, page([100, 110], 120));
    expect(prepend(tail, page([0, 30], 60))).toEqual(tail);
  });
  it("knows whether it has caught up", () => {
    expect(isAtEnd(append(EMPTY, page([0], 10, { end_offset: 500 })))).toBe(false);
    expect(isAtEnd(append(EMPTY, page([0], 10)))).toBe(true);
  });
  it("keeps the newest lines of a very long log", () => {
    const offsets = Array.from({ length: 60_000 }, (_, i) => i);
    const long = append(append(EMPTY, page(offsets, 60_000)), page(offsets.map((i) => i + 60_000), 120_000));
    expect(long.lines.length).toBe(100_000);
    expect(long.lines.at(-1)?.offset).toBe(119_999);
  });
});
