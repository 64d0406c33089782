import { describe, expect, it } from "vitest";

import { lackOf, othersSentence, waitWords } from "./wait";

const asked = { cpus: 192, memory: 3200 * 2 ** 30, gpus: 16 };

describe("what a stage waits for", () => {
  it("is the first resource of which too little is free", () => {
    const quota = { cpus: 384, memory: 8 * 2 ** 40, gpus: 32 };
    const wait = { asked, quota, used: { cpus: 336, memory: 0, gpus: 8 }, free: { cpus: 48, memory: 8 * 2 ** 40, gpus: 24 } };
    expect(lackOf(wait)).toEqual({ resource: "cpus", title: "CPUs", asked: "192", free: "48", quota: "384", shares: { used: 336 / 528, asked: 192 / 528, quota: 384 / 528 } });
  });
  it("is GPUs when everything is free, and has no bar where nobody queues", () => {
    expect(lackOf({ asked, quota: null, used: null, free: null })).toEqual({ resource: "gpus", title: "GPUs", asked: "16", free: null, quota: null, shares: null });
  });
  it("is never less than nothing, also where a pool has lent what it has", () => {
    const wait = { asked, quota: { ...asked, gpus: 8 }, used: { ...asked, gpus: 12 }, free: { ...asked, gpus: -4 } };
    expect(lackOf(wait)).toMatchObject({ title: "GPUs", free: "0", quota: "8" });
  });
  it("is said with what else was asked for", () => {
    expect(othersSentence({ asked }, "gpus")).toBe("192 CPUs, 3.13 TiB");
    expect(othersSentence({ asked: { cpus: 4, memory: 2 ** 34 } }, "memory")).toBe("4 CPUs");
    expect([waitWords("waits_for_quota"), waitWords("running")]).toEqual(["for quota", ""]);
  });
});
