import type { EvaluationOut, Figure } from "@/api";

/** Evaluations of a stage's checkpoints as points on its curves. Pure. */

export type EvaluatedStep = { readonly id: string; readonly step: number; readonly figure: Figure };
export type SuitePoints = { readonly suite: string; readonly tools: boolean; readonly points: readonly EvaluatedStep[] };

/** By suite, with tools and without, in the order of the steps; of a step the newest. `evaluations`: newest first. */
export function pointsOf(evaluations: readonly EvaluationOut[], stageId: string): SuitePoints[] {
  const found = new Map<string, { suite: string; tools: boolean; steps: Map<number, EvaluatedStep> }>();
  for (const { id, suite, target_detail: detail, summary } of evaluations) {
    const { step } = detail;
    // Of positions turned otherwise than trained: no point of this training.
    if (detail.yarn) continue;
    if (detail.stage_id !== stageId || typeof step !== "number" || !summary.score) continue;
    const tools = summary.settings.tools ?? false;
    const key = `${suite} ${tools}`;
    const mine = found.get(key) ?? { suite, tools, steps: new Map<number, EvaluatedStep>() };
    if (!mine.steps.has(step)) mine.steps.set(step, { id, step, figure: summary.score });
    found.set(key, mine);
  }
  return [...found.values()]
    .map(({ suite, tools, steps }) => ({ suite, tools, points: [...steps.values()].sort((a, b) => a.step - b.step) }))
    .sort((a, b) => a.suite.localeCompare(b.suite) || Number(a.tools) - Number(b.tools));
}

export const suiteLabel = ({ suite, tools }: Pick<SuitePoints, "suite" | "tools">): string => (tools ? `${suite} with tools` : suite);
