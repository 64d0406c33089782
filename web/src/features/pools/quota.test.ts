import { describe, expect, it } from "vitest";

import type { PoolOut } from "@/api";

import { quotaSentence, quotasOf, sharesOf } from "./quota";

function pool(spec: Partial<PoolOut["spec"]>, used: Record<string, number> = {}, borrowed: Record<string, number> = {}): Parameters<typeof quotasOf>[0] {
  return { spec: { name: "h800", kind: "kubernetes", ...spec }, status: { used, borrowed, capacity: null } };
}

describe("quota of a pool", () => {
  it("has a line for each resource that there is", () => {
    const found = quotasOf(pool({ quota: { cpus: 8, memory: 2 ** 34, gpus: 0 } }, { cpu: 2 }));
    expect(found.map((one) => one.title)).toEqual(["CPUs", "Memory"]);
  });
  it("is nothing where nobody queues", () => {
    expect(quotasOf(pool({}))).toEqual([]);
  });
  it("is the processors of a machine that its stages share", () => {
    const status = { used: { cpu: 1.5 }, borrowed: {}, capacity: { cpus: 2, memory: 2 ** 34, gpus: 0, share: 1 } };
    const [cpus, ...others] = quotasOf({ spec: { name: "local", kind: "local" }, status });
    expect([cpus && quotaSentence(cpus), others]).toEqual(["1.5 of 2 used", []]);
  });
  it("ends with the quota without a cohort, with what may be borrowed in one, and nowhere when that has no limit", () => {
    const quota = { cpus: 8, memory: 0, gpus: 4 };
    const most = (spec: Partial<PoolOut["spec"]>) => quotasOf(pool({ quota, ...spec }))[0]?.most;
    expect([most({}), most({ cohort: "gpus", borrow: { cpus: 0, memory: 0, gpus: 2 } }), most({ cohort: "gpus" })]).toEqual([4, 6, null]);
  });
});

describe("the bar", () => {
  const quota = { cpus: 0, memory: 0, gpus: 8 };
  const [one] = quotasOf(pool({ quota, cohort: "gpus", borrow: { cpus: 0, memory: 0, gpus: 8 } }, { "nvidia.com/gpu": 12 }, { "nvidia.com/gpu": 4 }));
  it("tells what is borrowed from what is the pool's own", () => {
    expect(one && sharesOf(one)).toEqual({ own: 0.5, borrowed: 0.25, quota: 0.5 });
    expect(one && quotaSentence(one)).toBe("12 of 8 used, 4 of them borrowed, 16 at most");
  });
  it("holds more than the quota where no limit says how long it is", () => {
    const [free] = quotasOf(pool({ quota, cohort: "gpus" }, { "nvidia.com/gpu": 16 }, { "nvidia.com/gpu": 8 }));
    expect(free && sharesOf(free)).toEqual({ own: 0.5, borrowed: 0.5, quota: 0.5 });
  });
  it("is empty without quota and use", () => {
    expect(one && sharesOf({ ...one, used: 0, borrowed: 0, quota: 0, most: 0 })).toEqual({ own: 0, borrowed: 0, quota: 0 });
  });
});
