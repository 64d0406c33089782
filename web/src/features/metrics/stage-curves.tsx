import { Link } from "@tanstack/react-router";
import { useMemo } from "react";

import type { RunOut, StageOut } from "@/api";
import { WhenVisible } from "@/components/charts/when-visible";
import { buttonClass } from "@/components/ui/button";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { LiveCosts } from "@/features/datasets/live-costs";

import { CurveControls } from "./controls";
import { linesOf, type Scale, type Source, stepsOf } from "./lines";
import { spliced, stitch } from "./merge";
import { Panel, PANEL_PIXELS } from "./panel";
import { rampOf, strokeOf } from "./palette";
import { isOfTimeline, lineLabel, type Panel as PanelSpec, panelsOf } from "./panels";
import { useCurves, useMetricKeys } from "./queries";
import { thresholdMarks } from "./threshold";
import { Timeline } from "./timeline";
import { type CurveView, useCurveView } from "./view";

/** Live curves of a stage. */
export default function StageCurves({ run, stage }: { run: RunOut; stage: StageOut }) {
  const view = useCurveView();
  const keys = useMetricKeys(run.id);
  const mine = keys.data?.items.filter((item) => item.stage_id === stage.id).map((item) => item.key) ?? [];
  if (keys.error && !keys.data) return <div className="p-4"><ProblemNotice error={keys.error} /></div>;
  if (!keys.data) return <SkeletonLines count={8} className="p-4" />;
  if (mine.length === 0) {
    return (
      <Empty title={`${stage.id} has sent no metrics`} command={`abruzzi metrics ${run.id}`} action={<Link from="/runs/$runId" search={(old) => ({ ...old, tab: "logs" })} className={buttonClass()}>Read its log</Link>}>
        {stage.attempts.length === 0 ? "It has not started yet; its curves appear here by themselves." : "Curves appear here by themselves when it sends some."}
      </Empty>
    );
  }
  return (
    <div className="flex flex-col gap-3 p-4">
      <CurveControls view={view} />
      <Stale error={keys.error} />
      <LiveCosts metrics={keys.data.items.filter((item) => item.stage_id === stage.id)} />
      {mine.some(isOfTimeline) && <Timeline run={run} stage={stage} />}
      <div className="grid grid-cols-[repeat(auto-fill,minmax(24rem,1fr))] gap-3 max-sm:grid-cols-1">
        {panelsOf(mine).map((panel) => (
          <WhenVisible key={panel.id} height={PANEL_PIXELS} isWide={view.of(panel.id).large ?? false}>
            <StagePanel panel={panel} run={run} stage={stage} view={view} />
          </WhenVisible>
        ))}
      </div>
    </div>
  );
}

function StagePanel({ panel, run, stage, view }: { panel: PanelSpec; run: RunOut; stage: StageOut; view: CurveView }) {
  const newestAttempt = stage.attempts.at(-1)?.id;
  const wanted = { runId: run.id, stageId: stage.id, newestAttempt };
  const whole = useCurves({ ...wanted, keys: panel.keys, steps: null });
  const tokens = useCurves({ ...wanted, keys: ["train/tokens"], steps: null, enabled: view.x === "tokens" });
  // A retry begins the stage anew; time goes on from its first attempt.
  const startSeconds = Date.parse(stage.attempts[0]?.started_at ?? stage.started_at ?? run.created_at) / 1000;
  const scale = useMemo((): Scale => ({ axis: view.x, tokens: stitch(tokens.data ?? []).curve, startSeconds }), [view.x, tokens.data, startSeconds]);
  const isCoarse = whole.data?.some((curve) => curve.tier > 1) ?? false;
  const exact = useCurves({ ...wanted, keys: panel.keys, steps: stepsOf(whole.data?.at(-1) ?? null, scale, view.range), enabled: isCoarse && view.range !== null });
  const isClose = isCoarse && view.range !== null && exact.data !== undefined && !exact.isPlaceholderData;
  const curves = useMemo(() => (isClose ? spliced(whole.data ?? [], exact.data ?? []) : whole.data), [isClose, whole.data, exact.data]);
  const smooth = view.of(panel.id).smooth ?? (panel.isExact ? 0 : view.smooth);
  const told = panel.keys.join();
  const drawn = useMemo(() => {
    const sources = panel.keys.map((key, i): Source => ({
      id: key,
      label: lineLabel(key, panel),
      stroke: panel.isLayered ? rampOf(i, panel.keys.length) : strokeOf(i),
      curves: (curves ?? []).filter((curve) => curve.key === key),
    }));
    return linesOf(sources, smooth, () => scale);
    // eslint-disable-next-line react-hooks/exhaustive-deps -- the panel is told by its keys
  }, [told, curves, smooth, scale]);
  const marks = useMemo(() => thresholdMarks(panel.id, [stage]), [panel.id, stage]);
  return (
    <Panel
      id={panel.id}
      title={panel.title}
      about={panel.about}
      lines={drawn.lines}
      boundaries={drawn.boundaries}
      marks={marks}
      view={view}
      isPending={whole.isPending}
      error={whole.error}
      tier={Math.max(1, ...((isClose ? exact.data : whole.data) ?? []).map((curve) => curve.tier))}
    />
  );
}
