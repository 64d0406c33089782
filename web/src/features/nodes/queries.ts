import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { toast } from "sonner";

import { type NodeListOut, type NodeOut, nodesDrain, nodesReturn } from "@/api";
import { nodesListOptions } from "@/api/@tanstack/react-query.gen";
import { toProblem } from "@/lib/problem";

const LOOK_MILLISECONDS = 5000;
const COUNT_MILLISECONDS = 15_000;

export const useNodes = (pool: string) => useQuery({ ...nodesListOptions({ query: { pool } }), refetchInterval: LOOK_MILLISECONDS });

/** Of all pools, for counting. */
export const useAllNodes = () => useQuery({ ...nodesListOptions(), refetchInterval: COUNT_MILLISECONDS });

export type Verb = "drain" | "return";

/** Drains or returns a node, and shows at once what the platform has accepted. */
export function useSteerNode(verb: Verb) {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: async ({ name, reason }: { name: string; reason: string }) =>
      (await (verb === "drain" ? nodesDrain : nodesReturn)({ path: { name }, body: { reason }, throwOnError: true })).data,
    onSuccess: (node: NodeOut) => {
      queryClient.setQueriesData<NodeListOut>({ queryKey: [{ _id: "nodesList" }] }, (old) => old && { ...old, items: old.items.map((one) => (one.name === node.name ? node : one)) });
      toast(verb === "drain" ? `${node.name} is being drained: its stages save and go on elsewhere.` : `${node.name} takes part again.`);
    },
    onError: (error) => toast.error(toProblem(error).detail, { description: [toProblem(error).hint, toProblem(error).code].filter(Boolean).join(" · ") }),
    onSettled: () => queryClient.invalidateQueries({ queryKey: [{ _id: "nodesList" }] }),
  });
}
