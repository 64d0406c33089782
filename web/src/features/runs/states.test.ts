import { describe, expect, it } from "vitest";

import type { StageOut } from "@/api";

import { retriedStages, stageToShow } from "./states";

const stage = (id: string, state: StageOut["state"], needs: string[] = [], attempts = 1): StageOut => ({
  id, run_id: "r", kind: "container", state, reason: null, needs, gate: null, config: {}, progress: null, eta_seconds: null, started_at: null,
  ended_at: null, not_before: null, attempts: Array.from({ length: attempts }, () => ({}) as StageOut["attempts"][number]),
});

describe("retriedStages", () => {
  const stages = [stage("a", "succeeded"), stage("b", "succeeded", ["a"]), stage("c", "failed", ["b"]), stage("d", "skipped", ["c"])];
  it("runs what did not succeed", () => {
    expect(retriedStages(stages, null)).toEqual(["c", "d"]);
  });
  it("runs the chosen stage and all that needs it", () => {
    expect(retriedStages(stages, "b")).toEqual(["b", "c", "d"]);
  });
});

describe("stageToShow", () => {
  it("prefers what runs, then what waits, then what failed, then the last that was tried", () => {
    expect(stageToShow([stage("a", "failed"), stage("b", "running")])?.id).toBe("b");
    expect(stageToShow([stage("a", "failed"), stage("b", "pending")])?.id).toBe("b");
    expect(stageToShow([stage("a", "failed"), stage("b", "skipped")])?.id).toBe("a");
    expect(stageToShow([stage("a", "succeeded"), stage("b", "waiting", ["a"], 0)])?.id).toBe("a");
  });
  it("shows the stage with the most curves when all is over", () => {
    expect(stageToShow([stage("a", "succeeded"), stage("b", "succeeded"), stage("c", "succeeded")], new Map([["a", 1], ["b", 20]]))?.id).toBe("b");
  });
});
