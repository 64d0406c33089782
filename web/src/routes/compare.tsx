import { useQueries } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { lazy, Suspense, useMemo } from "react";

import { runsGetOptions, runsMetricKeysOptions } from "@/api/@tanstack/react-query.gen";
import type { CompareSearch } from "@/app/search";
import { buttonClass } from "@/components/ui/button";
import { Select } from "@/components/ui/field";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import type { Compared } from "@/features/metrics/compare-curves";
import { RecipeDiff } from "@/features/recipes/recipe-diff";
import { HeadlineTable } from "@/features/runs/headline-table";
import { RunPicker } from "@/features/runs/run-picker";
import { isActive } from "@/features/runs/states";
import { usePageTitle } from "@/lib/page-title";

const CompareCurves = lazy(() => import("@/features/metrics/compare-curves"));
const route = getRouteApi("/compare");
const NONE: readonly string[] = [];
const LIVE_MILLISECONDS = 3000;

/** Runs side by side: headline figures, what their recipes do differently, all curves on top of each other. */
export function ComparePage() {
  usePageTitle("Compare");
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const ids = search.runs ?? NONE;
  const set = (change: Partial<CompareSearch>) => void navigate({ search: (old) => ({ ...old, ...change }), replace: true });
  const runs = useQueries({
    queries: ids.map((id) => ({
      ...runsGetOptions({ path: { run_id: id } }),
      refetchInterval: (query: { state: { data?: { state: Parameters<typeof isActive>[0] } | undefined } }) =>
        query.state.data && isActive(query.state.data.state) ? LIVE_MILLISECONDS : (false as const),
    })),
  });
  const keys = useQueries({
    queries: ids.map((id, i) => {
      const state = runs[i]?.data?.state;
      return { ...runsMetricKeysOptions({ path: { run_id: id } }), staleTime: 5000, refetchInterval: state === undefined || isActive(state) ? LIVE_MILLISECONDS : (false as const) };
    }),
  });
  const fetched = [...runs, ...keys].map((query) => query.dataUpdatedAt).join();
  const compared = useMemo(
    () => runs.flatMap(({ data: run }, i): Compared[] => (run ? [{ run, keys: keys[i]?.data?.items ?? [] }] : [])),
    // eslint-disable-next-line react-hooks/exhaustive-deps -- results are told by when they were fetched
    [fetched, ids],
  );
  const there = compared.map((one) => one.run);
  const base = there.some((run) => run.id === search.base) ? (search.base ?? "") : (there[0]?.id ?? "");
  const missing = runs.find((query) => query.error && !query.data)?.error;
  const stale = [...runs, ...keys].find((query) => query.error && query.data)?.error;
  const stages = stagesOf(compared);
  const stage = stages.find(({ id }) => id === search.stage)?.id ?? stages[0]?.id;
  return (
    <div className="flex flex-col gap-5 pb-8">
      <div className="-mb-5 flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg font-semibold">Compare</h1>
        <RunPicker chosen={ids} onPick={(id) => set({ runs: [...ids, id] })} />
        <div className="flex-1" />
        <Stale error={stale} />
      </div>
      {missing && <div className="px-4 pt-4"><ProblemNotice error={missing} /></div>}
      {ids.length === 0 && (
        <Empty title="Nothing to compare yet" command="abruzzi compare RUN RUN" action={<Link to="/runs" className={buttonClass("primary")}>Choose runs</Link>}>
          Select two or more runs in the list, then press c; or add them here one by one.
        </Empty>
      )}
      {ids.length > 0 && there.length === 0 && !missing && <SkeletonLines count={8} className="p-4" />}
      {there.length > 0 && (
        <>
          <HeadlineTable
            runs={there}
            base={base}
            onBase={(id) => set({ base: id })}
            onRemove={(id) => {
              const left = ids.filter((other) => other !== id);
              set({ runs: left.length > 0 ? left : undefined });
            }}
          />
          {there.length > 1 && <RecipeDiff runs={there} base={base} all={search.all ?? false} onAll={(all) => set({ all: all || undefined })} />}
          <section aria-label="Curves" className="px-4">
            <Suspense fallback={<SkeletonLines count={8} />}>
              {stages.length > 1 && (
                <Select label="Stage" value={stage} className="mb-3" onChange={(event) => set({ stage: event.target.value, zoom: undefined })}>
                  {stages.map(({ id, runs: count }) => (
                    <option key={id} value={id}>
                      Stage {id}
                      {count < there.length ? `, in ${count} of ${there.length} runs` : ""}
                    </option>
                  ))}
                </Select>
              )}
              <CompareCurves compared={compared} stageId={stage ?? ""} />
            </Suspense>
          </section>
        </>
      )}
    </div>
  );
}

/** Stages that have curves, those of most curves first: what somebody compares first. */
function stagesOf(compared: readonly Compared[]): { id: string; runs: number }[] {
  const curves = new Map<string, number>();
  for (const { stage_id } of compared.flatMap((one) => one.keys)) curves.set(stage_id, (curves.get(stage_id) ?? 0) + 1);
  const order = [...curves].sort(([, a], [, b]) => b - a).map(([id]) => id);
  return order.map((id) => ({ id, runs: compared.filter((one) => one.keys.some((key) => key.stage_id === id)).length }));
}
