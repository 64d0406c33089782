import type { StageOut } from "@/api";
import type { Mark } from "@/components/charts/underlay";

/** τ of the stages that clip by it, once each. `muon` carries the key too, but is the optimizer without the clip. Pure. */
export function thresholdMarks(panel: string, stages: readonly (Pick<StageOut, "config"> | undefined)[]): Mark[] {
  if (panel !== "max-logit") return [];
  const values = new Set(stages.map((stage) => thresholdOf(stage?.config.optimizer)).filter((value) => value !== null));
  return [...values].map((value) => ({ value, label: `τ = ${value}` }));
}

function thresholdOf(optimizer: unknown): number | null {
  if (typeof optimizer !== "object" || optimizer === null || !("qk_clip_threshold" in optimizer)) return null;
  if (!("kind" in optimizer) || optimizer.kind !== "muonclip") return null;
  return typeof optimizer.qk_clip_threshold === "number" ? optimizer.qk_clip_threshold : null;
}
