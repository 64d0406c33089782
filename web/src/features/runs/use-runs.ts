import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";

import { type RunState, runsList } from "@/api";
import { openStream } from "@/lib/live";
import { throttled } from "@/lib/throttle";

import { isActive } from "./states";

const PAGE = 100;
const ACTIVE_LOOK_MILLISECONDS = 2000;
const IDLE_LOOK_MILLISECONDS = 20_000;

/** The list of runs, newest first, page by page; live while it is open. */
export function useRuns(filter: { q?: string | undefined; state?: readonly RunState[] | undefined }) {
  const queryClient = useQueryClient();
  const query = useInfiniteQuery({
    queryKey: ["runs", filter.q ?? "", filter.state ?? []],
    queryFn: async ({ pageParam, signal }) => {
      const search = { limit: PAGE, cursor: pageParam, q: filter.q ?? null, state: filter.state ? [...filter.state] : null };
      return (await runsList({ query: search, signal, throwOnError: true })).data;
    },
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    placeholderData: (before) => before,
    // Heartbeats move progress without an event.
    refetchInterval: (q) => (q.state.data?.pages.some((page) => page.items.some((run) => isActive(run.state))) ? ACTIVE_LOOK_MILLISECONDS : IDLE_LOOK_MILLISECONDS),
  });
  useEffect(() => {
    const look = throttled(() => void queryClient.invalidateQueries({ queryKey: ["runs"] }, { cancelRefetch: false }), 1000);
    const close = openStream(() => "/api/v1/events/stream", { event: look });
    return () => {
      look.cancel();
      close();
    };
  }, [queryClient]);
  const runs = useMemo(() => query.data?.pages.flatMap((page) => page.items) ?? [], [query.data]);
  return { ...query, runs };
}
