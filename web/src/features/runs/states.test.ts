import { describe, expect, it } from "vitest";

import type { RunOut, StageOut } from "@/api";

import { retriedStages, shownRunState, shownState, stageToShow } from "./states";

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
  it("prefers what runs, then what failed, then the last that was tried", () => {
    expect(stageToShow([stage("a", "failed"), stage("b", "running")])?.id).toBe("b");
    expect(stageToShow([stage("a", "failed"), stage("b", "skipped")])?.id).toBe("a");
    expect(stageToShow([stage("a", "succeeded"), stage("b", "waiting", ["a"], 0)])?.id).toBe("a");
  });
  it("shows the stage with the most curves when all is over", () => {
    expect(stageToShow([stage("a", "succeeded"), stage("b", "succeeded"), stage("c", "succeeded")], new Map([["a", 1], ["b", 20]]))?.id).toBe("b");
  });
});

describe("what waits in the cluster", () => {
  const attempt = (state: string, reason: string | null) => ({ state, reason }) as StageOut["attempts"][number];
  const queued = { ...stage("b", "running"), attempts: [attempt("starting", "It waits in queue 'h800'.")] };
  const atWork = { ...stage("c", "running"), attempts: [attempt("running", "It waits no more.")] };
  const starting = { ...stage("d", "running"), attempts: [attempt("created", null)] };
  const run = (...detail: StageOut[]) => ({ state: "running", detail }) as unknown as RunOut;
  it("is not said to run, whatever the engine counts it as", () => {
    expect([queued, atWork, starting].map(shownState)).toEqual(["pending", "running", "running"]);
  });
  it("makes a run pending when nothing else of it runs", () => {
    expect([run(stage("a", "succeeded"), queued), run(queued, atWork), run(starting)].map(shownRunState)).toEqual(["pending", "running", "running"]);
  });
});
