import type { AttemptState, RunState, RunSummary, StageOut, StageState } from "@/api";

/** How states look and what they are called. Colour is never the only sign: each tone has its own shape (state-mark.tsx). */

export type AnyState = RunState | StageState | AttemptState;
export type Tone = "live" | "good" | "bad" | "wait" | "warn" | "off";

const TONES: Record<AnyState, Tone> = {
  pending: "wait", waiting: "wait", created: "wait", starting: "live", running: "live", cancelling: "warn", stopping: "warn",
  interrupted: "warn", succeeded: "good", failed: "bad", cancelled: "off", skipped: "off",
};

export const toneOf = (state: AnyState): Tone => TONES[state] ?? "wait";

export const TONE_TEXT: Record<Tone, string> = { live: "text-accent", good: "text-ok", bad: "text-bad", wait: "text-faint", warn: "text-warn", off: "text-faint" };
export const TONE_FILL: Record<Tone, string> = { live: "bg-accent", good: "bg-ok", bad: "bg-bad", wait: "bg-line-strong", warn: "bg-warn", off: "bg-line-strong" };

export const isEnded = (state: RunState): boolean => state === "succeeded" || state === "failed" || state === "cancelled";
export const isActive = (state: RunState): boolean => !isEnded(state);

/** Seconds that something took, or has taken so far; null before it started. */
export function tookSeconds(thing: { started_at: string | null; ended_at: string | null }, now: number): number | null {
  if (!thing.started_at) return null;
  return Math.max(0, ((thing.ended_at ? Date.parse(thing.ended_at) : now) - Date.parse(thing.started_at)) / 1000);
}

/** What a person looks at first: what runs, else what waits in the cluster, else what failed, else the stage with the most curves, else the last that was tried. */
export function stageToShow(stages: readonly StageOut[], curves: ReadonlyMap<string, number> = new Map()): StageOut | undefined {
  const most = Math.max(0, ...curves.values());
  return (
    stages.find((stage) => stage.state === "running") ??
    stages.find((stage) => stage.state === "pending" && stage.attempts.length > 0) ??
    stages.find((stage) => stage.state === "failed") ??
    stages.find((stage) => most > 0 && curves.get(stage.id) === most) ??
    stages.findLast((stage) => stage.attempts.length > 0) ??
    stages[0]
  );
}

/** Stages that a retry from `from` runs again: itself, what needs it, and everything that did not succeed. */
export function retriedStages(stages: readonly StageOut[], from: string | null): string[] {
  const again = new Set(stages.filter((stage) => stage.state !== "succeeded").map((stage) => stage.id));
  if (from) again.add(from);
  for (let grew = true; grew; ) {
    grew = false;
    for (const stage of stages) {
      if (again.has(stage.id) || !stage.needs.some((need) => again.has(need))) continue;
      again.add(stage.id);
      grew = true;
    }
  }
  return stages.filter((stage) => again.has(stage.id)).map((stage) => stage.id);
}

/** Name of the token that submitted it; before the colon stands the token's id. */
export const submittedBy = (run: Pick<RunSummary, "created_by">): string => run.created_by.replace(/^[^:]*:/, "");

export const lossOf = (run: Pick<RunSummary, "headline">): number | null => run.headline["train/loss"] ?? null;
export const bitsOf = (run: Pick<RunSummary, "headline">): number | null => run.headline.bits_per_byte ?? null;
