import { describe, expect, it } from "vitest";

import type { NodeOut } from "@/api";

import { byUrgency, canDrain, canReturn, countStates, gpuCount, gpuSentence, gpusOf, rankRanges } from "./nodes";

function node(change: Partial<NodeOut> = {}): NodeOut {
  return {
    name: "n-1", pool: "h800", kind: "kubernetes", state: "ready", reason: "", since: "2026-11-26T00:00:00Z", cpus: 96, memory: 2 ** 40,
    gpus: { total: 8, healthy: 8, used: 0 }, topology: {}, conditions: [], taints: [], cordoned: false, heartbeat_at: null, lemon_score: 0,
    faults: [], attempts: [], hidden_attempts: 0, drain: null, returned: null, observed_at: "2026-11-26T00:00:00Z", ...change,
  };
}

describe("the order of nodes", () => {
  it("begins with what somebody has to look at, then by score, then by number", () => {
    const nodes = [node({ name: "n-10" }), node({ name: "n-9" }), node({ name: "n-3", lemon_score: 1 }), node({ name: "n-5", state: "drained" }), node({ name: "n-8", state: "lost" })];
    expect(nodes.sort(byUrgency).map((one) => one.name)).toEqual(["n-8", "n-5", "n-3", "n-9", "n-10"]);
  });
  it("counts only states that there are", () => {
    const { nodes, states } = countStates([node(), node({ state: "lost" }), node()]);
    expect([nodes, ...states]).toEqual([3, ["lost", 1], ["ready", 2]]);
  });
});

describe("GPUs by state", () => {
  it("sum to all that there are, whatever is wrong with a node", () => {
    const nodes = [
      node({ gpus: { total: 8, healthy: 6, used: 5 } }),
      node({ state: "lost", gpus: { total: 8, healthy: 8, used: 8 } }),
      node({ state: "draining", gpus: { total: 8, healthy: 8, used: 2 } }),
      node({ cordoned: true }),
      node({ gpus: { total: 0, healthy: 0, used: 0 } }),
    ];
    const gpus = gpusOf(nodes);
    expect(gpus).toEqual({ used: 7, free: 1, held: 14, sick: 10 });
    expect(gpuCount(gpus)).toBe(32);
    expect(gpuSentence(gpus)).toBe("7 used, 1 free, 14 on nodes that take nothing new, 10 not offered");
  });
});

describe("draining and returning", () => {
  it("is not offered for the platform's own machine", () => {
    expect([canDrain(node({ kind: "local" })), canReturn(node({ kind: "local", state: "quarantined" }))]).toEqual([false, false]);
  });
  it("is offered one at a time, but both for a node in quarantine", () => {
    const drain = { reason: "fan", by: "admin:me", at: "2026-11-26T00:00:00Z" };
    expect([node(), node({ drain }), node({ state: "quarantined" })].map((one) => [canDrain(one), canReturn(one)])).toEqual([
      [true, false],
      [false, true],
      [true, true],
    ]);
  });
});

describe("ranks", () => {
  it("are written as ranges", () => {
    expect([rankRanges([]), rankRanges([3]), rankRanges([1, 0, 2, 7, 9, 8])]).toEqual(["", "3", "0–2, 7–9"]);
  });
});
