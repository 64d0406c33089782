import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { useAllNodes } from "@/features/nodes/queries";
import { DefinePool } from "@/features/pools/define";
import { PoolsTable } from "@/features/pools/pools-table";
import { usePools } from "@/features/pools/queries";
import { usePageTitle } from "@/lib/page-title";

/** Where ranks run, and how full it is. */
export function PoolsPage() {
  usePageTitle("Pools");
  const { data, error, isPending } = usePools();
  const nodes = useAllNodes();
  const pools = data?.items ?? [];
  return (
    <div className="flex flex-col pb-8">
      <div className="flex items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="text-lg leading-7 font-semibold">Pools</h1>
        <div className="flex-1" />
        <Stale error={data && (error ?? nodes.error)} />
      </div>
      {error && !data && <div className="p-4"><ProblemNotice error={error} /></div>}
      {isPending && !error && <SkeletonLines count={6} className="p-4" />}
      {data && pools.length === 0 && <Empty title="No pools">Runs wait until there is one: stages have nowhere to run.</Empty>}
      {pools.length > 0 && <PoolsTable pools={pools} nodes={nodes.data?.items} />}
      {data && pools.every((pool) => pool.spec.kind === "local") && <DefinePool />}
    </div>
  );
}
