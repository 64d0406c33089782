import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { toast } from "sonner";

import { type RunOut, runsBranch, runsCancel, runsOverrideGate, runsRetry } from "@/api";
import { runsGatesOptions, runsGetOptions, runsGetQueryKey, runsWhyOptions } from "@/api/@tanstack/react-query.gen";
import { openStream } from "@/lib/live";
import { toProblem } from "@/lib/problem";
import { throttled } from "@/lib/throttle";

import { isEnded } from "./states";

const CURVES_MILLISECONDS = 1000;
const WHY_MILLISECONDS = 2000;
const ENDED_LOOK_MILLISECONDS = 15_000;

export const runKey = (runId: string) => runsGetQueryKey({ path: { run_id: runId } });

/** A run, kept live by its stream. The stream's events also tell curves, artifacts and the why sentence that there is something new. */
export function useLiveRun(runId: string) {
  const queryClient = useQueryClient();
  const query = useQuery({
    ...runsGetOptions({ path: { run_id: runId } }),
    // The stream of an ended run is over; somebody may retry it from a terminal.
    refetchInterval: (q) => (q.state.data && isEnded(q.state.data.state) ? ENDED_LOOK_MILLISECONDS : false),
  });
  const isThere = query.data !== undefined;
  const ended = query.data ? isEnded(query.data.state) : false;
  useEffect(() => {
    if (!isThere || ended) return;
    const touch = (id: string) => () => void queryClient.invalidateQueries({ queryKey: [{ _id: id }] }, { cancelRefetch: false });
    const curves = throttled(() => {
      void queryClient.invalidateQueries({ queryKey: ["curves", runId] }, { cancelRefetch: false });
      touch("runsMetricKeys")();
    }, CURVES_MILLISECONDS);
    const why = throttled(() => ["runsWhy", "runsGates"].forEach((id) => touch(id)()), WHY_MILLISECONDS);
    const artifacts = throttled(touch("artifactsList"), CURVES_MILLISECONDS);
    const close = openStream(() => `/api/v1/runs/${runId}/stream`, {
      run: (data) => {
        queryClient.setQueryData(runKey(runId), data as RunOut);
        why();
      },
      metrics: curves,
      event: (data) => {
        if ((data as { kind: string }).kind.startsWith("artifact")) artifacts();
      },
    });
    return () => {
      close();
      for (const action of [curves, why, artifacts]) action.cancel();
      // What came between the last look and the end.
      void queryClient.invalidateQueries({ queryKey: ["curves", runId] });
      for (const id of ["runsWhy", "runsGates", "artifactsList", "runsMetricKeys"]) touch(id)();
    };
  }, [queryClient, runId, isThere, ended]);
  return query;
}

export function useWhy(runId: string) {
  return useQuery({ ...runsWhyOptions({ path: { run_id: runId } }), placeholderData: (before) => before });
}

/** Each gate with what its conditions have come to; nothing is asked of a run without gates. */
export function useGates(run: RunOut) {
  const hasGates = run.detail.some((stage) => stage.gate !== null);
  return useQuery({ ...runsGatesOptions({ path: { run_id: run.id } }), enabled: hasGates, placeholderData: (before) => before });
}

export type Steering = ReturnType<typeof useSteering>;

/** Cancel, retry, branch, override a gate. Each says at once what the platform has accepted. */
export function useSteering(run: RunOut) {
  const queryClient = useQueryClient();
  const path = { run_id: run.id };
  const onError = (error: unknown) => {
    const problem = toProblem(error);
    toast.error(problem.detail, { description: [problem.hint, problem.code].filter(Boolean).join(" · ") });
  };
  const show = (next: RunOut) => {
    queryClient.setQueryData(runKey(next.id), next);
    for (const _id of ["runsWhy", "runsGates"]) void queryClient.invalidateQueries({ queryKey: [{ _id }] });
  };
  const cancel = useMutation({
    mutationFn: async () => (await runsCancel({ path, throwOnError: true })).data,
    onSuccess: (next) => {
      show(next);
      toast("Cancelling: running stages save, then stop.");
    },
    onError,
  });
  const retry = useMutation({
    mutationFn: async (stageId: string | null) => (await runsRetry({ path, body: { stage_id: stageId }, throwOnError: true })).data,
    onSuccess: (next, stageId) => {
      show(next);
      toast(stageId ? `Running again from ${stageId}.` : "Running again.");
    },
    onError,
  });
  const override = useMutation({
    mutationFn: async ({ stageId, reason }: { stageId: string; reason: string }) =>
      (await runsOverrideGate({ path: { ...path, stage_id: stageId }, body: { reason }, throwOnError: true })).data,
    onSuccess: (next, { stageId }) => {
      show(next);
      toast(`The gate before ${stageId} was overridden; the run goes on.`);
    },
    onError,
  });
  const branch = useMutation({
    mutationFn: async (body: { artifact_id: string; name: string | null; overrides: Record<string, string> }) =>
      (await runsBranch({ path, body, throwOnError: true })).data,
  });
  return { cancel, retry, override, branch };
}
