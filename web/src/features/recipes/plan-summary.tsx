import { TriangleAlert } from "lucide-react";

import { bytes, compact, span, whole } from "@/lib/format";

import { type PlannedStage, readPlan } from "./plan-shape";

/** The dry run: what each stage needs before anything is started. */
export function PlanSummary({ plan }: { plan: unknown }) {
  const { stages, warnings } = readPlan(plan);
  return (
    <div className="flex flex-col gap-3">
      {warnings.map((warning) => (
        <Warning key={warning} text={warning} />
      ))}
      {stages.map((stage) => (
        <Stage key={stage.id} stage={stage} />
      ))}
    </div>
  );
}

function Stage({ stage }: { stage: PlannedStage }) {
  const t = stage.training;
  const r = stage.reinforcement;
  const facts: [string, string][] = r
    ? [
        ["Parameters", `${compact(r.total)}, ${compact(r.active)} active`],
        ["Iterations", `${whole(r.iterations)} of ${whole(r.trajectories)} trajectories, ${whole(r.steps)} steps`],
        ["Tokens an iteration", r.tokensAtMost === null ? "–" : `${compact(r.tokensAtMost)} of the policy at most`],
        ...r.phaseBytes.map(([name, size]): [string, string] => [`Memory, ${name}`, bytes(size)]),
        ...(r.replicas > 1 && r.replicaBytes !== null ? ([["Other replicas", `${r.replicas - 1}, ${bytes(r.replicaBytes)} each`]] as [string, string][]) : []),
      ]
    : t
    ? [
        ["Parameters", `${compact(t.total)}, ${compact(t.active)} active`],
        ["FLOPs per token", compact(t.flopsPerToken)],
        ["Tokens", t.tokens === null || t.steps === null ? "as the data has" : `${compact(t.tokens)} in ${whole(t.steps)} steps`],
        ["States", t.stateBytes === null ? "–" : `${bytes(t.stateBytes)} on ${t.pipelineStages > 1 ? "a middle pipeline stage" : "a rank"}`],
        ["Activations", t.activationBytes === null ? "–" : bytes(t.activationBytes)],
        ["Expected time", t.seconds === null ? "–" : `${span(t.seconds)}${t.tokensPerSecond === null ? "" : ` at ${compact(t.tokensPerSecond)} tokens/s`}`],
        ...(t.device ? ([["Assumes", `${t.device}${t.utilisation === null ? "" : ` at ${Math.round(100 * t.utilisation)} %`}`]] as [string, string][]) : []),
      ]
    : [];
  return (
    <section className="rounded-lg border border-line bg-surface">
      <header className="flex items-center gap-2 px-3 py-2">
        <h3 className="font-medium">{stage.id}</h3>
        <span className="text-sm text-muted">{stage.kind === stage.id ? "" : stage.kind}</span>
        <span className="ml-auto text-sm text-muted">
          {stage.ranks} {stage.ranks === 1 ? "rank" : "ranks"} on {stage.pool}
        </span>
      </header>
      {facts.length > 0 && (
        <dl className="grid grid-cols-[auto_1fr] gap-x-4 gap-y-1 border-t border-line px-3 py-2 text-sm">
          {facts.map(([name, value]) => (
            <div key={name} className="contents">
              <dt className="text-muted">{name}</dt>
              <dd className="text-right">{value}</dd>
            </div>
          ))}
        </dl>
      )}
      {stage.warnings.length > 0 && (
        <div className="flex flex-col gap-1 border-t border-line p-2">
          {stage.warnings.map((warning) => (
            <Warning key={warning} text={warning} />
          ))}
        </div>
      )}
    </section>
  );
}

function Warning({ text }: { text: string }) {
  return (
    <p className="flex gap-2 rounded-md bg-warn-soft px-2 py-1.5 text-sm">
      <TriangleAlert className="mt-0.5 size-3.5 shrink-0 text-warn" aria-hidden />
      {text}
    </p>
  );
}
