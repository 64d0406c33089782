import { keepPreviousData, type QueryClient, queryOptions, useQuery, useQueryClient } from "@tanstack/react-query";

import { metricsList, type SeriesOut } from "@/api";
import { runsMetricKeysOptions } from "@/api/@tanstack/react-query.gen";
import type { Range } from "@/components/charts/model";

import { mergeCurve, resumeStep } from "./merge";

/** Points of a line; beyond it the server sends buckets with exact extrema, a quarter of it at least. */
const LINE_POINTS = 2000;
/** Of a panel with many lines, such as one a layer. */
const CROWDED_POINTS = 800;
const CROWD = 8;

const pointsOf = (keys: readonly string[]): number => (keys.length > CROWD ? CROWDED_POINTS : LINE_POINTS);

export function useMetricKeys(runId: string) {
  return useQuery({ ...runsMetricKeysOptions({ path: { run_id: runId } }), staleTime: 5000 });
}

export type Wanted = {
  readonly runId: string;
  readonly stageId: string;
  readonly keys: readonly string[];
  /** Newest attempt of the stage: only a curve that has it can be continued, otherwise everything is fetched. */
  readonly newestAttempt: string | undefined;
  /** Steps; null: all of them. A zoom fetches exact points. */
  readonly steps: Range | null;
  readonly enabled?: boolean;
};

/** Curves of a stage. `queryClient.invalidateQueries(["curves", runId])` fetches only what is new. */
export const useCurves = (wanted: Wanted) => useQuery(curvesOptions(useQueryClient(), wanted));

export function curvesOptions(queryClient: QueryClient, { runId, stageId, keys, newestAttempt, steps, enabled = true }: Wanted) {
  const queryKey = ["curves", runId, stageId, keys, steps] as const;
  return queryOptions({
    queryKey,
    enabled: enabled && keys.length > 0,
    staleTime: 5000,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }) => {
      const fetchFrom = async (from: number | null) => {
        const to = steps ? Math.ceil(steps[1]) : null;
        const query = { run: runId, stage: stageId, key: [...keys], max_points: pointsOf(keys), from_step: from, to_step: to };
        return (await metricsList({ query, signal, throwOnError: true })).data.items;
      };
      const start = steps ? Math.max(0, Math.floor(steps[0])) : null;
      const before = steps ? undefined : queryClient.getQueryData<SeriesOut[]>(queryKey);
      const current = before?.filter((curve) => curve.attempt_id === newestAttempt) ?? [];
      if (!before || current.length === 0) return await fetchFrom(start);
      const fresh = await fetchFrom(Math.min(...current.map(resumeStep)));
      return continued(before, fresh, 1.5 * pointsOf(keys)) ?? (await fetchFrom(start));
    },
  });
}

/** Null: the fresh points do not fit to what is there, or there are more than `most`: fetch anew, in a coarser tier. */
export function continued(before: readonly SeriesOut[], fresh: readonly SeriesOut[], most: number): SeriesOut[] | null {
  const identity = (curve: SeriesOut): string => `${curve.attempt_id} ${curve.key}`;
  const out = new Map(before.map((curve) => [identity(curve), curve]));
  for (const curve of fresh) {
    const base = out.get(identity(curve));
    const merged = base ? mergeCurve(base, curve) : null;
    if (!merged || merged.steps.length > most) return null;
    out.set(identity(curve), merged);
  }
  return [...out.values()];
}
