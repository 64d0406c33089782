import { useInfiniteQuery } from "@tanstack/react-query";

import { artifactsList } from "@/api";
import { artifactsListInfiniteQueryKey } from "@/api/@tanstack/react-query.gen";

const PAGE = 100;

/** What a run has made, newest first, page by page. Told by its stream when there is something new. */
export function useArtifacts(runId: string) {
  const search = { run: runId, order: "newest" as const, limit: PAGE };
  return useInfiniteQuery({
    queryKey: artifactsListInfiniteQueryKey({ query: search }),
    queryFn: async ({ pageParam, signal }) => (await artifactsList({ query: { ...search, cursor: pageParam }, signal, throwOnError: true })).data,
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
}
