import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { createColumnHelper, createSortedRowModel, rowSortingFeature, sortFn_alphanumeric, tableFeatures } from "@tanstack/react-table";

import type { RunSummary } from "@/api";
import { runsGetOptions } from "@/api/@tanstack/react-query.gen";
import { Progress } from "@/components/ui/progress";
import { ago, figure, percent, span } from "@/lib/format";
import { useNow } from "@/lib/now";

import { StageStrip } from "./stage-strip";
import { StateMark } from "./state-mark";
import { bitsOf, isActive, lossOf, submittedBy, tookSeconds } from "./states";

export const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel(), sortFns: { alphanumeric: sortFn_alphanumeric } });
const helper = createColumnHelper<typeof features, RunSummary>();
const ETA_LOOK_MILLISECONDS = 5000;

/** Widths of the checkbox and then of each column. */
export const GRID = "grid grid-cols-[2rem_minmax(14rem,1fr)_7.5rem_10.5rem_5rem_5rem_6rem_6.5rem] items-center";

export const columns = helper.columns([
  helper.accessor("name", { id: "name", header: "Run", sortFn: "alphanumeric", cell: ({ row }) => <NameCell run={row.original} /> }),
  helper.accessor("state", { id: "state", header: "Stages", sortFn: "alphanumeric", cell: ({ row }) => <StageStrip stages={row.original.stages} /> }),
  helper.accessor((run) => run.progress ?? 0, { id: "progress", header: "Progress", cell: ({ row }) => <ProgressCell run={row.original} /> }),
  helper.accessor((run) => lossOf(run) ?? undefined, { id: "loss", header: "Loss", sortUndefined: "last", cell: ({ row }) => <Figure value={lossOf(row.original)} /> }),
  helper.accessor((run) => bitsOf(run) ?? undefined, { id: "bpb", header: "Bits/byte", sortUndefined: "last", cell: ({ row }) => <Figure value={bitsOf(row.original)} /> }),
  helper.accessor((run) => tookSeconds(run, 0) ?? undefined, { id: "took", header: "Took", sortUndefined: "last", cell: ({ row }) => <TookCell run={row.original} /> }),
  helper.accessor((run) => -Date.parse(run.created_at), { id: "age", header: "Submitted", cell: ({ row }) => <AgeCell run={row.original} /> }),
]);

export const NUMERIC = new Set(["loss", "bpb", "took", "age"]);

function NameCell({ run }: { run: RunSummary }) {
  return (
    <div className="flex min-w-0 items-center gap-2.5">
      <StateMark state={run.state} />
      <span className="sr-only">{run.state}</span>
      <div className="min-w-0">
        <Link to="/runs/$runId" params={{ runId: run.id }} className="block truncate font-medium outline-offset-2" title={run.reason ?? undefined}>
          {run.name}
        </Link>
        <p className="flex gap-2 truncate text-sm text-faint">
          <span>{run.id}</span>
          <span className="truncate">{run.recipe_name}</span>
        </p>
      </div>
    </div>
  );
}

function ProgressCell({ run }: { run: RunSummary }) {
  if (!isActive(run.state)) return <span className="text-muted">{run.state}</span>;
  return (
    <div className="flex w-36 flex-col gap-1">
      <p className="flex justify-between text-sm text-muted">
        <span>{run.progress === null ? run.state : percent(run.progress)}</span>
        {run.state === "running" && <Eta runId={run.id} />}
      </p>
      <Progress share={run.progress} label={`Progress of ${run.name}`} tone={run.state === "running" ? "accent" : "muted"} />
    </div>
  );
}

/** The list does not know the pace of a stage; the run does. Only rows that are visible and running ask. */
function Eta({ runId }: { runId: string }) {
  const { data } = useQuery({ ...runsGetOptions({ path: { run_id: runId } }), refetchInterval: ETA_LOOK_MILLISECONDS });
  const etas = data?.detail.map((stage) => stage.eta_seconds).filter((eta) => eta !== null) ?? [];
  return etas.length > 0 ? <span title="Of the stage that runs">{span(Math.max(...etas))} left</span> : null;
}

function Figure({ value }: { value: number | null }) {
  return <span className={value === null ? "text-faint" : ""}>{figure(value)}</span>;
}

function TookCell({ run }: { run: RunSummary }) {
  const took = tookSeconds(run, useNow());
  return <span className="text-muted">{took === null ? "–" : span(took)}</span>;
}

function AgeCell({ run }: { run: RunSummary }) {
  return (
    <time dateTime={run.created_at} title={`${new Date(run.created_at).toLocaleString()} by ${submittedBy(run)}`} className="text-muted">
      {ago(run.created_at, useNow())}
    </time>
  );
}
