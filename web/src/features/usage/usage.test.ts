import { describe, expect, it } from "vitest";

import type { Hours, UsageOut, UsageRow } from "@/api";

import { rangeOf, readDay } from "./range";
import { dayName, daysBetween, goodputOf, hours, layersOf, unitOf } from "./usage";

const NONE: Hours = { gpu: 0, cpu: 0 };

function row(key: string, causes: Partial<UsageRow["causes"]> = {}, queue: Hours = NONE): UsageRow {
  const all = { train: NONE, checkpoint: NONE, start_up: NONE, hang: NONE, lost_work: NONE, idle: NONE, ...causes };
  const held = Object.values(all).reduce((sum, one) => ({ gpu: sum.gpu + one.gpu, cpu: sum.cpu + one.cpu }), NONE);
  return { key, name: key, held, causes: all, queue, goodput: null };
}

function usage(items: UsageRow[], total: UsageRow): UsageOut {
  return { from_day: "2026-11-24", to_day: "2026-11-26", by: "day", items, total, computed_at: "2026-11-26T00:00:00Z" };
}

describe("usage by day", () => {
  const work = (gpu: number) => ({ train: { gpu, cpu: 10 * gpu } });
  const found = usage([row("2026-11-24", work(4)), row("2026-11-26", { ...work(2), hang: { gpu: 1, cpu: 10 } })], row("total", { ...work(6), hang: { gpu: 1, cpu: 10 } }));
  it("has a bar for every day and a layer for every cause that took time, work at the bottom", () => {
    const { days, layers } = layersOf(found, "gpu");
    expect(days).toEqual(["2026-11-24", "2026-11-25", "2026-11-26"]);
    expect(layers.map((layer) => [layer.id, layer.values])).toEqual([["train", [4, 0, 2]], ["hang", [0, 0, 1]]]);
  });
  it("counts GPU-hours where there are GPUs, even if they were only waited for, else CPU-hours", () => {
    const cpu = row("total", { train: { gpu: 0, cpu: 3 } });
    expect([unitOf(found), unitOf(usage([], cpu)), unitOf(usage([], { ...cpu, queue: { gpu: 1, cpu: 0 } }))]).toEqual(["gpu", "cpu", "gpu"]);
  });
  it("says which share was work", () => {
    expect([goodputOf(found.total, "gpu"), goodputOf(row("x"), "gpu")]).toEqual([6 / 7, null]);
  });
});

describe("days", () => {
  it("go over the ends of months and years", () => {
    expect(daysBetween("2026-12-30", "2027-01-02")).toEqual(["2026-12-30", "2026-12-31", "2027-01-01", "2027-01-02"]);
    expect(dayName("2026-11-06")).toBe("6 Nov");
  });
  it("end today in UTC, or are those of the address in their order", () => {
    const now = Date.parse("2026-11-26T23:30:00Z");
    expect(rangeOf({}, now)).toEqual({ from: "2026-10-28", to: "2026-11-26", preset: 30 });
    expect(rangeOf({ days: 7 }, now)).toEqual({ from: "2026-11-20", to: "2026-11-26", preset: 7 });
    expect(rangeOf({ from: "2026-11-05", to: "2026-11-01", days: 7 }, now)).toEqual({ from: "2026-11-01", to: "2026-11-05", preset: null });
  });
  it("are dropped when they are none", () => {
    expect(["2026-11-26", "2026-13-45", "today", 7].map(readDay)).toEqual(["2026-11-26", undefined, undefined, undefined]);
  });
});

describe("hours", () => {
  it("have as many decimals as mean something, and nothing is a dash", () => {
    expect([0, 0.001, 0.042, 9.876, 123.46, 12345.6].map(hours)).toEqual(["–", "<0.01", "0.04", "9.88", "123.5", "12,346"]);
  });
});
