import { type InfiniteData, keepPreviousData, useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { toast } from "sonner";

import { artifactsList, artifactsRows, reviewsPut, reviewsTakeBack, type ReviewOut, type RowOut, type RowPage, type Verdict } from "@/api";
import { artifactsDatasetOptions, artifactsFactsOptions, artifactsGetOptions, artifactsListInfiniteQueryKey } from "@/api/@tanstack/react-query.gen";
import { toProblem } from "@/lib/problem";

import { nounOf } from "./listing";

const PAGE = 100;
const CUT_CHARACTERS = 160;

export type RowView = { readonly noun: string; readonly fate?: readonly string[] | undefined; readonly q?: string | undefined; readonly where?: readonly string[] | undefined; readonly review?: "none" | undefined };

export const useArtifact = (id: string) => useQuery(artifactsGetOptions({ path: { artifact_id: id } }));
/** What is committed never changes. */
export const useDataset = (id: string) => useQuery({ ...artifactsDatasetOptions({ path: { artifact_id: id } }), staleTime: Infinity });
export const useFacts = (id: string, noun: string, enabled = true) =>
  useQuery({ ...artifactsFactsOptions({ path: { artifact_id: id, noun } }), staleTime: Infinity, enabled });
/** Artifacts that may hold rows, newest first; of a run, or of all. */
export function useDataArtifacts(run: string | undefined) {
  const query = { rows: true, order: "newest" as const, limit: 100, ...(run ? { run } : {}) };
  return useInfiniteQuery({
    queryKey: artifactsListInfiniteQueryKey({ query }),
    queryFn: async ({ pageParam, signal }) => (await artifactsList({ query: { ...query, cursor: pageParam }, signal, throwOnError: true })).data,
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    staleTime: 5000,
  });
}

const rowsKey = (id: string) => ["rows", id] as const;

/** Rows that match, page by page, cut to what a list shows. A page may be empty while there is more: one request looks at some megabytes. */
export function useRows(id: string, { noun, fate, q, where, review }: RowView) {
  const query = {
    noun, limit: PAGE, cut: CUT_CHARACTERS, fields: [...nounOf(noun).fields],
    ...(fate?.length ? { fate: [...fate] } : {}), ...(q ? { q } : {}), ...(where?.length ? { where: [...where] } : {}), ...(review ? { review } : {}),
  };
  return useInfiniteQuery({
    queryKey: [...rowsKey(id), "list", query],
    queryFn: async ({ pageParam, signal }) => (await artifactsRows({ path: { artifact_id: id }, query: { ...query, cursor: pageParam }, signal, throwOnError: true })).data,
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
    // A queue keeps what was decided in it, so that one can go back; it is asked anew when somebody comes to it.
    staleTime: review ? 0 : Infinity,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
    gcTime: review ? 0 : 300_000,
  });
}

/** One row, whole. */
export function useRow(id: string, noun: string, position: string | undefined) {
  return useQuery({
    queryKey: [...rowsKey(id), "row", noun, position],
    enabled: position !== undefined,
    staleTime: Infinity,
    placeholderData: keepPreviousData,
    queryFn: async ({ signal }): Promise<RowOut | null> => {
      const page = (await artifactsRows({ path: { artifact_id: id }, query: { noun, cursor: position ?? null, limit: 1 }, signal, throwOnError: true })).data;
      return page.items[0] ?? null;
    },
  });
}

/** Accept, reject, take back: shown at once, and put back where the platform refuses. */
export function useReviewing(id: string) {
  const queryClient = useQueryClient();
  const path = { artifact_id: id };
  const show = (rowId: string, review: ReviewOut | null) => {
    const mended = (item: RowOut): RowOut => (item.row.id === rowId ? { ...item, review } : item);
    queryClient.setQueriesData<InfiniteData<RowPage>>({ queryKey: [...rowsKey(id), "list"] }, (data) =>
      data && { ...data, pages: data.pages.map((page) => ({ ...page, items: page.items.map(mended) })) });
    queryClient.setQueriesData<RowOut | null>({ queryKey: [...rowsKey(id), "row"] }, (item) => item && mended(item));
  };
  const mutation = useMutation({
    // One after the other: the last key pressed is the last word.
    scope: { id: `review ${id}` },
    mutationFn: async ({ rowId, verdict, note }: { rowId: string; verdict: Verdict | null; note: string; before: ReviewOut | null }) => {
      if (verdict === null) {
        await reviewsTakeBack({ path, query: { row_id: rowId }, throwOnError: true });
        return null;
      }
      return (await reviewsPut({ path, body: { row_id: rowId, verdict, note }, throwOnError: true })).data;
    },
    onMutate: ({ rowId, verdict, note }) => show(rowId, verdict && { row_id: rowId, verdict, note, by: "you", at: new Date().toISOString() }),
    onSuccess: (review, { rowId }) => {
      show(rowId, review);
      void queryClient.invalidateQueries({ queryKey: [{ _id: "reviewsList" }] });
      void queryClient.invalidateQueries({ queryKey: [{ _id: "redteamGet" }] });
    },
    onError: (error, { rowId, before }) => {
      show(rowId, before);
      const problem = toProblem(error);
      toast.error(problem.detail, { description: [problem.hint, problem.code].filter(Boolean).join(" · ") });
    },
  });
  return mutation.mutate;
}
