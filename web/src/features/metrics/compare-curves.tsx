import { useQueries, useQueryClient } from "@tanstack/react-query";
import { useMemo } from "react";

import type { MetricKeyOut, RunOut } from "@/api";
import { WhenVisible } from "@/components/charts/when-visible";
import { isActive } from "@/features/runs/states";

import { CurveControls } from "./controls";
import { envelope } from "./envelope";
import { linesOf, type Scale, type Source } from "./lines";
import { stitch } from "./merge";
import { strokeOf } from "./palette";
import { Panel, PANEL_PIXELS } from "./panel";
import { type Panel as PanelSpec, panelsOf } from "./panels";
import { curvesOptions } from "./queries";
import { type CurveView, useCurveView } from "./view";

const LIVE_MILLISECONDS = 3000;

export type Compared = { readonly run: RunOut; readonly keys: readonly MetricKeyOut[]; readonly color: number };

/** Every metric that any of the runs has, one panel each, one line a run. Of layers the highest is drawn. */
export default function CompareCurves({ compared }: { compared: readonly Compared[] }) {
  const view = useCurveView();
  const keys = [...new Set(compared.flatMap((one) => one.keys.map((item) => item.key)))];
  const panels = panelsOf(keys).flatMap((panel): PanelSpec[] =>
    panel.isLayered || panel.keys.length === 1
      ? [panel.isLayered ? { ...panel, title: `${panel.title}, highest layer` } : panel]
      : panel.keys.map((key) => ({ ...panel, id: key.replaceAll("/", "."), title: `${panel.title}, ${key}`, keys: [key] })),
  );
  return (
    <div className="flex flex-col gap-3">
      <CurveControls view={view} />
      <div className="grid grid-cols-[repeat(auto-fill,minmax(26rem,1fr))] gap-3 max-sm:grid-cols-1">
        {panels.map((panel) => (
          <WhenVisible key={panel.id} height={PANEL_PIXELS}>
            <ComparePanel panel={panel} compared={compared} view={view} />
          </WhenVisible>
        ))}
      </div>
    </div>
  );
}

function ComparePanel({ panel, compared, view }: { panel: PanelSpec; compared: readonly Compared[]; view: CurveView }) {
  const queryClient = useQueryClient();
  const wanted = (one: Compared, keys: readonly string[]) => {
    const stageId = one.keys.find((item) => keys.includes(item.key))?.stage_id ?? "";
    const stage = one.run.detail.find((item) => item.id === stageId);
    const options = curvesOptions(queryClient, {
      runId: one.run.id,
      stageId,
      keys: keys.filter((key) => one.keys.some((item) => item.key === key)),
      newestAttempt: stage?.attempts.at(-1)?.id,
      steps: null,
      enabled: stageId !== "",
    });
    return { ...options, refetchInterval: isActive(one.run.state) ? LIVE_MILLISECONDS : (false as const) };
  };
  const results = useQueries({ queries: compared.map((one) => wanted(one, panel.keys)) });
  const tokens = useQueries({ queries: compared.map((one) => ({ ...wanted(one, ["train/tokens"]), enabled: view.x === "tokens" })) });
  const smooth = view.of(panel.id).smooth ?? (panel.isExact ? 0 : view.smooth);
  const fetched = [...results, ...tokens].map((result) => result.dataUpdatedAt).join();
  const drawn = useMemo(() => {
    const sources = compared.map((one, i): Source => {
      const curves = results[i]?.data ?? [];
      return { id: one.run.id, label: one.run.name, stroke: strokeOf(one.color), curves: panel.isLayered ? envelope(curves, panel.id) : curves };
    });
    return linesOf(sources, smooth, (source): Scale => {
      const at = compared.findIndex((one) => one.run.id === source.id);
      const run = compared[at]?.run;
      const stage = run?.detail.find((item) => item.id === source.curves[0]?.stage_id);
      return { axis: view.x, tokens: stitch(tokens[at]?.data ?? []).curve, startSeconds: Date.parse(stage?.started_at ?? run?.created_at ?? "") / 1000 };
    });
    // eslint-disable-next-line react-hooks/exhaustive-deps -- results are told by when they were fetched
  }, [compared, fetched, panel.id, smooth, view.x]);
  return (
    <Panel
      id={panel.id}
      title={panel.title}
      about={panel.about}
      lines={drawn.lines}
      boundaries={drawn.boundaries}
      view={view}
      isPending={results.some((result) => result.isPending && result.fetchStatus !== "idle")}
      error={results.find((result) => result.error)?.error}
      tier={Math.max(1, ...results.flatMap((result) => result.data?.map((curve) => curve.tier) ?? []))}
    />
  );
}
