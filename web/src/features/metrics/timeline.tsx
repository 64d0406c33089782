import { useMemo } from "react";

import type { RunOut, StageOut } from "@/api";
import { Stale } from "@/components/ui/notice";
import { Skeleton } from "@/components/ui/progress";
import { Tooltip } from "@/components/ui/tooltip";
import { figure, percent, span } from "@/lib/format";

import { strokeOf } from "./palette";
import { CAUSES } from "./panels";
import { useCurves } from "./queries";
import { type Column, columnsOf, totalsOf } from "./timeline-shape";

const COLUMNS = 96;
const CHART_PIXELS = 132;
const ABOUT: Record<(typeof CAUSES)[number], string> = {
  infer: "The engine computes tokens",
  environment: "Nothing can be computed before an environment answers",
  score: "Rewards are computed",
  train: "The policy is trained",
  switch: "Memory changes hands; weights are registered, sent and verified",
  save: "Journal and checkpoints are written",
  evaluate: "Tasks that are never trained on are answered",
  idle: "Nobody has anything to do",
};
const colorOf = (cause: (typeof CAUSES)[number]): string => strokeOf(CAUSES.indexOf(cause)).color;

/** Where the wall time of each iteration went: bars that are as high as it took, stacked by cause. */
export function Timeline({ run, stage }: { run: RunOut; stage: StageOut }) {
  const keys = useMemo(() => CAUSES.map((cause) => `time/${cause}`), []);
  const curves = useCurves({ runId: run.id, stageId: stage.id, newestAttempt: stage.attempts.at(-1)?.id, keys, steps: null });
  const columns = useMemo(() => columnsOf(curves.data ?? [], COLUMNS), [curves.data]);
  const totals = totalsOf(columns);
  const longest = Math.max(1e-9, ...columns.map((column) => column.total / (column.to - column.from + 1)));
  return (
    <section aria-label="Where the time went" className="rounded-lg border border-line bg-surface px-3 pt-2 pb-2.5">
      <header className="flex flex-wrap items-baseline gap-x-4 gap-y-1">
        <h2 className="font-medium">Where the time went</h2>
        <ul className="flex flex-wrap gap-x-3.5 gap-y-0.5 text-sm">
          {totals.map(([cause, seconds, share]) => (
            <li key={cause}>
              <Tooltip says={`${ABOUT[cause]}: ${span(seconds)}`}>
                <span className="inline-flex items-center gap-1.5">
                  <span aria-hidden className="size-2.5 rounded-xs" style={{ background: colorOf(cause) }} />
                  {cause} <span className="text-muted">{percent(share)}</span>
                </span>
              </Tooltip>
            </li>
          ))}
        </ul>
        <div className="flex-1" />
        <span className="text-sm text-muted">seconds of an iteration, by cause</span>
      </header>
      <Stale error={curves.error} />
      {curves.isPending && <Skeleton className="my-2 !h-28" />}
      {columns.length > 0 && (
        <div aria-hidden className="mt-3 flex gap-2 text-xs text-muted">
          <div className="flex flex-col justify-between text-right leading-none whitespace-nowrap" style={{ height: CHART_PIXELS }}>
            {[1, 0.5, 0].map((share) => (
              <span key={share}>{figure(Number((share * longest).toPrecision(3)))} s</span>
            ))}
          </div>
          <div className="min-w-0 flex-1">
            <div className="flex items-end gap-px border-b border-line-strong bg-[linear-gradient(var(--line)_1px,transparent_1px)] bg-[length:100%_50%]" style={{ height: CHART_PIXELS }}>
              {columns.map((column) => (
                <Bar key={column.from} column={column} longest={longest} />
              ))}
            </div>
            <div className="mt-0.5 flex justify-between">
              <span>iteration {columns[0]?.from ?? ""}</span>
              <span>{columns.at(-1)?.to ?? ""}</span>
            </div>
          </div>
        </div>
      )}
      <table className="sr-only">
        <caption>Seconds by cause</caption>
        <tbody>
          {totals.map(([cause, seconds, share]) => (
            <tr key={cause}>
              <th scope="row">{cause}</th>
              <td>{span(seconds)}</td>
              <td>{percent(share)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Bar({ column, longest }: { column: Column; longest: number }) {
  const iterations = column.to - column.from + 1;
  const told = CAUSES.filter((cause) => column.seconds[cause] > 0).map((cause) => `${cause} ${span(column.seconds[cause] / iterations)}`);
  const title = `${iterations === 1 ? `Iteration ${column.from}` : `Iterations ${column.from} to ${column.to}, each`}: ${told.join(", ")}`;
  return (
    <div title={title} className="flex min-w-0 flex-1 flex-col-reverse overflow-hidden rounded-t-xs hover:opacity-80" style={{ height: `${(100 * column.total) / iterations / longest}%` }}>
      {CAUSES.map((cause) => column.seconds[cause] > 0 && <div key={cause} style={{ height: `${(100 * column.seconds[cause]) / column.total}%`, background: colorOf(cause) }} />)}
    </div>
  );
}
