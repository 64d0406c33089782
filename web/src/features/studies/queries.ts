import { useQuery } from "@tanstack/react-query";

import type { ArtifactOut, RunOut } from "@/api";
import { artifactsListOptions } from "@/api/@tanstack/react-query.gen";
import { fileAddress } from "@/features/artifacts/files";
import { impatientFetch } from "@/lib/patience";
import { textOf } from "@/lib/unknown";

import { readStudy } from "./study-shape";

/** The newest comparison of arms among what the run has made; asked only of runs that have a stage of the kind that compares. */
export function useComparison(run: RunOut): ArtifactOut | undefined {
  const { data } = useQuery({
    ...artifactsListOptions({ query: { run: run.id, kind: "files", order: "newest", limit: 50 } }),
    enabled: run.detail.some((stage) => stage.kind === "container"),
  });
  return data?.items.find((artifact) => artifact.deleted_at === null && textOf(artifact.meta.comparison) !== "");
}

/** What it says, and its picture. */
export function useStudy(artifact: ArtifactOut) {
  return useQuery({
    queryKey: ["study", artifact.id],
    staleTime: Infinity,
    queryFn: async ({ signal }) => {
      const [body, picture] = await Promise.all(
        ["comparison.json", "comparison.svg"].map(async (name) => {
          const response = await impatientFetch(fileAddress(artifact.id, name), { signal });
          if (!response.ok) throw await response.json();
          return response.text();
        }),
      );
      return { study: readStudy(JSON.parse(body ?? "null")), picture: picture ?? "" };
    },
  });
}
