import { useQuery } from "@tanstack/react-query";

import { artifactsRows, type EvaluationOut } from "@/api";
import { evaluationsCompareOptions, evaluationsGetOptions, evaluationsListOptions } from "@/api/@tanstack/react-query.gen";
import type { Json } from "@/lib/unknown";

const NOUN = "answers";
/** Of one item: as many pages are looked through until all of its answers are found. A page is some megabytes of rows. */
const MOST_PAGES = 400;

/** What is evaluated never changes. */
export const useEvaluation = (id: string) => useQuery({ ...evaluationsGetOptions({ path: { evaluation_id: id } }), staleTime: Infinity });

/** Others of the same suite, newest first. */
export const useOthers = ({ id, suite }: EvaluationOut) =>
  useQuery({ ...evaluationsListOptions({ query: { suite, limit: 200 } }), select: (page) => page.items.filter((one) => one.id !== id) });

/** `a` is the other, `b` this one. */
export const usePaired = (id: string, other: string | undefined) =>
  useQuery({ ...evaluationsCompareOptions({ path: { evaluation_id: id, other_id: other ?? "" } }), enabled: other !== undefined, staleTime: Infinity });

/** The answers to one item, whole, in the order of the samples. */
export function useItem(evaluation: EvaluationOut | undefined, item: string | undefined) {
  return useQuery({
    queryKey: ["answers", evaluation?.id, item],
    enabled: evaluation !== undefined && item !== undefined,
    staleTime: Infinity,
    queryFn: async ({ signal }): Promise<Json[]> => {
      const { artifact_id: id, suite, summary } = evaluation as EvaluationOut;
      const found: Json[] = [];
      let cursor: string | null = null;
      for (let page = 0; page < MOST_PAGES; page += 1) {
        const where = [`suite:${suite}`, `item:${item}`];
        const read: Awaited<ReturnType<typeof artifactsRows<true>>>["data"] = (await artifactsRows({ path: { artifact_id: id }, query: { noun: NOUN, where, cursor, limit: 100 }, signal, throwOnError: true })).data;
        found.push(...read.items.map((one) => one.row));
        cursor = read.next_cursor;
        if (cursor === null || found.length >= (summary.settings.samples ?? 1)) break;
      }
      return found;
    },
  });
}
