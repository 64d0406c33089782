import { getRouteApi, Link } from "@tanstack/react-router";
import { X } from "lucide-react";
import { useState } from "react";

import { buttonClass } from "@/components/ui/button";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { DataTable } from "@/features/datasets/data-table";
import { useDataArtifacts } from "@/features/datasets/queries";
import { useShortcuts } from "@/lib/keys";
import { usePageTitle } from "@/lib/page-title";

const route = getRouteApi("/data");

/** Everything that people can look at row by row: of a run, or of all. */
export function DataPage() {
  usePageTitle("Data");
  const { run } = route.useSearch();
  const navigate = route.useNavigate();
  const { data, error, hasNextPage, isFetchingNextPage, fetchNextPage } = useDataArtifacts(run);
  const artifacts = data?.pages.flatMap((page) => page.items) ?? [];
  const [cursor, setCursor] = useState(-1);
  const current = artifacts[cursor];
  useShortcuts("Data", {
    j: ["Next", () => setCursor(Math.min(artifacts.length - 1, cursor + 1))],
    k: ["Previous", () => setCursor(Math.max(0, cursor - 1))],
    ...(current ? { Enter: ["Open", () => void navigate({ to: "/data/$artifactId", params: { artifactId: current.id } })] as const } : {}),
  });
  return (
    <div className="flex flex-col pb-8">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg leading-7 font-semibold">Data</h1>
        {run && (
          <Link to="/data" className="inline-flex h-7 items-center gap-1 rounded-md bg-selected px-2 text-sm text-accent [&_svg]:size-3.5" title="Of all runs">
            run {run} <X aria-hidden />
          </Link>
        )}
        <div className="flex-1" />
        <Stale error={data ? error : null} />
      </div>
      {error && !data && <div className="p-4"><ProblemNotice error={error} /></div>}
      {!data && !error && <SkeletonLines count={8} className="p-4" />}
      {data && artifacts.length === 0 && (
        <Empty title="No data yet" command="abruzzi run recipes/tiny.toml" action={<Link to="/runs/new" className={buttonClass("primary")}>New run</Link>}>
          Corpora, rewrites, tools, trajectories and conversations appear here when a stage has made them.
        </Empty>
      )}
      {artifacts.length > 0 && <DataTable artifacts={artifacts} cursor={cursor} />}
      {hasNextPage && (
        <div className="flex justify-center p-3">
          <button type="button" className={buttonClass()} disabled={isFetchingNextPage} onClick={() => void fetchNextPage()}>
            Show earlier ones
          </button>
        </div>
      )}
    </div>
  );
}
