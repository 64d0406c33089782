import { type InfiniteData, useInfiniteQuery, useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useMemo } from "react";

import { type PageRunSummary, type RunState, runsList } from "@/api";
import type { SortKey } from "@/app/search";
import { openStream } from "@/lib/live";
import { throttled } from "@/lib/throttle";

import { renewed } from "./pages";
import { isActive } from "./states";

const PAGE = 100;
const ACTIVE_LOOK_MILLISECONDS = 2000;
const IDLE_LOOK_MILLISECONDS = 20_000;
const EVENT_LOOK_MILLISECONDS = 1000;
/** Runs further down may have moved or left: all pages that are here are fetched again, this often at most. */
const FULL_LOOK_MILLISECONDS = 60_000;
const ACTIVE: readonly RunState[] = ["pending", "running", "cancelling", "interrupted"];

export type RunsView = { q: string; state: readonly RunState[] | undefined; sort: SortKey; ascending: boolean };

/** The list of runs, sorted by the platform, page by page. While it is open only its first page and what is active is asked for again. */
export function useRuns({ q, state, sort, ascending }: RunsView) {
  const queryClient = useQueryClient();
  const queryKey = useMemo(() => ["runs", q, state ?? [], sort, ascending], [q, state, sort, ascending]);
  const fetchPage = async (cursor: string | null, states: readonly RunState[] | undefined, signal: AbortSignal): Promise<PageRunSummary> => {
    const search = { limit: PAGE, cursor, q: q || null, state: states ? [...states] : null, sort, order: ascending ? ("asc" as const) : ("desc" as const) };
    return (await runsList({ query: search, signal, throwOnError: true })).data;
  };
  const query = useInfiniteQuery({
    queryKey,
    queryFn: ({ pageParam, signal }) => fetchPage(pageParam, state, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    placeholderData: (before) => before,
    staleTime: FULL_LOOK_MILLISECONDS,
  });
  const runs = useMemo(() => query.data?.pages.flatMap((page) => page.items) ?? [], [query.data]);
  const isBusy = runs.some((run) => isActive(run.state));
  const lookKey = useMemo(() => ["runs look", ...queryKey], [queryKey]);
  const look = useQuery({
    queryKey: lookKey,
    enabled: query.data !== undefined && !query.isPlaceholderData,
    gcTime: 0,
    // Heartbeats move progress without an event.
    refetchInterval: isBusy ? ACTIVE_LOOK_MILLISECONDS : IDLE_LOOK_MILLISECONDS,
    queryFn: async ({ signal }) => {
      const pages = queryClient.getQueryData<InfiniteData<PageRunSummary, string | null>>(queryKey)?.pages ?? [];
      const beyond = state ? state.filter((one) => ACTIVE.includes(one)) : ACTIVE;
      const [first, active] = await Promise.all([fetchPage(null, state, signal), pages.length > 1 && beyond.length > 0 ? fetchPage(null, beyond, signal) : null]);
      queryClient.setQueryData<InfiniteData<PageRunSummary, string | null>>(queryKey, (old) => old && { ...old, pages: renewed(old.pages, first, active?.items ?? []) });
      return first.items.length;
    },
  });
  useEffect(() => {
    const quick = throttled(() => void queryClient.invalidateQueries({ queryKey: lookKey }, { cancelRefetch: false }), EVENT_LOOK_MILLISECONDS);
    const full = throttled(() => {
      const pages = queryClient.getQueryData<InfiniteData<PageRunSummary>>(queryKey)?.pages ?? [];
      if (pages.length > 1) void queryClient.invalidateQueries({ queryKey }, { cancelRefetch: false });
    }, FULL_LOOK_MILLISECONDS);
    const close = openStream(() => "/api/v1/events/stream", {
      event: () => {
        quick();
        full();
      },
    });
    return () => {
      quick.cancel();
      full.cancel();
      close();
    };
  }, [queryClient, queryKey, lookKey]);
  return { ...query, error: query.error ?? look.error, runs };
}
