import { useQuery } from "@tanstack/react-query";

import { type ArtifactOut, plan, type RunOut } from "@/api";
import { artifactsListOptions } from "@/api/@tanstack/react-query.gen";
import { fileAddress } from "@/features/artifacts/files";
import { type Layout, readLayouts } from "@/features/plan/layout-shape";
import { impatientFetch } from "@/lib/patience";
import { textOf } from "@/lib/unknown";

import { type Measured, readMeasured } from "./measured-shape";

/** The newest timeline that the stage has kept; asked only of runs that have a stage of a kind that keeps some. */
export function useTimeline(run: RunOut, stageId: string | undefined): ArtifactOut | undefined {
  const { data } = useQuery({
    ...artifactsListOptions({ query: { run: run.id, kind: "files", order: "newest", limit: 50 } }),
    enabled: run.detail.some((stage) => stage.kind === "pretrain" || stage.kind === "container"),
  });
  return data?.items.find((artifact) => artifact.stage_id === stageId && artifact.deleted_at === null && textOf(artifact.meta.timeline) === "pipeline");
}

export function useMeasured(artifact: ArtifactOut) {
  return useQuery({
    queryKey: ["timeline", artifact.id],
    staleTime: Infinity,
    queryFn: async ({ signal }): Promise<Measured | null> => {
      const response = await impatientFetch(fileAddress(artifact.id, "timeline.json"), { signal });
      if (!response.ok) throw await response.json();
      return readMeasured(await response.json());
    },
  });
}

/** Of the run's recipe as it ran; null where the stage is none that trains. */
export function usePlanned(run: RunOut, stageId: string) {
  const body = { recipe_toml: run.recipe_toml, overrides: {}, timeline: true, sweep: false };
  return useQuery({
    queryKey: ["plan", body],
    queryFn: async ({ signal }) => (await plan({ body, signal, throwOnError: true })).data,
    select: (planned): Layout | null => readLayouts(planned).find((layout) => layout.stage === stageId) ?? null,
    staleTime: Infinity,
    retry: false,
  });
}
