import { Link, useNavigate } from "@tanstack/react-router";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useState } from "react";

import type { LeaderboardCell, LeaderboardOut, LeaderboardRow } from "@/api";
import { Cell, Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";
import { ago, whole } from "@/lib/format";
import { useShortcuts } from "@/lib/keys";
import { useNow } from "@/lib/now";

import { cellsOf, flagsOf, hundredths, intervalText, targetName } from "./board-shape";

type Props = { rows: readonly LeaderboardRow[]; suites: LeaderboardOut["suites"]; sort: string | undefined; asc: boolean; onSort: (suite: string) => void };
type Place = { readonly row: number; readonly suite: number };

/** Checkpoints × suites. h j k l walk through it, Enter opens a figure, s sorts by its suite. */
export function LeaderboardTable({ rows, suites, sort, asc, onSort }: Props) {
  const navigate = useNavigate();
  const [cursor, setCursor] = useState<Place | null>(null);
  const move = (down: number, right: number) =>
    setCursor((old) => (old ? { row: clamp(old.row + down, rows.length), suite: clamp(old.suite + right, suites.length) } : { row: 0, suite: 0 }));
  const [row, suite] = cursor ? [rows[cursor.row], suites[cursor.suite]] : [];
  const cells = row && suite ? cellsOf(row, suite) : null;
  const chosen = cells?.plain ?? cells?.tools;
  useShortcuts("Leaderboard", {
    j: ["Down", () => move(1, 0)],
    k: ["Up", () => move(-1, 0)],
    l: ["Right", () => move(0, 1)],
    h: ["Left", () => move(0, -1)],
    ...(suite ? { s: ["Sort by this suite", () => onSort(suite)] as const } : {}),
    ...(chosen ? { Enter: ["Open", () => void navigate({ to: "/evaluations/$evaluationId", params: { evaluationId: chosen.evaluation_id } })] as const } : {}),
  });
  return (
    <Table label="Leaderboard">
      <thead>
        <tr>
          <Head className="sticky left-0 z-10 bg-bg">Checkpoint</Head>
          {suites.map((name) => (
            <Head key={name} aria-sort={sort === name ? (asc ? "ascending" : "descending") : "none"}>
              <button type="button" onClick={() => onSort(name)} title={`Sort by ${name}`} className="inline-flex items-center gap-1 rounded-sm font-medium hover:text-text [&_svg]:size-3">
                {name}
                {sort === name && (asc ? <ArrowUp aria-hidden /> : <ArrowDown aria-hidden />)}
              </button>
            </Head>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((one, i) => (
          <tr key={`${one.target} ${one.run_id}`} className="align-top hover:bg-hover">
            <TargetCell row={one} />
            {suites.map((name, n) => (
              <BoardCell key={name} row={one} suite={name} isCurrent={cursor?.row === i && cursor.suite === n} />
            ))}
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

const clamp = (at: number, count: number): number => Math.max(0, Math.min(count - 1, at));

function TargetCell({ row }: { row: LeaderboardRow }) {
  const now = useNow();
  const { step } = row.target_detail;
  return (
    <th scope="row" className="sticky left-0 z-10 max-w-72 border-b border-line bg-bg py-1.5 pr-3 pl-4 text-left font-normal">
      <p className="truncate font-medium" title={row.target}>{targetName(row)}</p>
      <p className="flex gap-x-2 text-sm whitespace-nowrap text-muted">
        {typeof step === "number" && <span>step {whole(step)}</span>}
        <Link to="/runs/$runId" params={{ runId: row.run_id }} className="truncate hover:underline" title={`Evaluated by the run ${row.run_name}`}>
          {row.run_name}
        </Link>
        <span className="text-faint" title={new Date(row.evaluated_at).toLocaleString()}>{ago(row.evaluated_at, now)}</span>
      </p>
    </th>
  );
}

function BoardCell({ row, suite, isCurrent }: { row: LeaderboardRow; suite: string; isCurrent: boolean }) {
  const { plain, tools } = cellsOf(row, suite);
  return (
    <Cell className={cn("min-w-36 py-1.5", isCurrent && "outline-2 -outline-offset-2 outline-accent")} aria-current={isCurrent ? "true" : undefined}>
      {!plain && !tools && <span className="text-faint" title="Not asked">–</span>}
      {plain && <CellFigure cell={plain} name={`${targetName(row)}, ${suite}`} way={tools ? "without tools" : null} />}
      {tools && <CellFigure cell={tools} name={`${targetName(row)}, ${suite}`} way="with tools" />}
    </Cell>
  );
}

function CellFigure({ cell, name, way }: { cell: LeaderboardCell; name: string; way: string | null }) {
  const flags = flagsOf(cell);
  return (
    <div className="[&+div]:mt-1.5">
      <Link to="/evaluations/$evaluationId" params={{ evaluationId: cell.evaluation_id }} className="group/figure flex items-baseline gap-2 whitespace-nowrap">
        <span className="sr-only">{`${name}${way ? `, ${way}` : ""}: `}</span>
        <span className="font-semibold group-hover/figure:underline">{cell.score ? `${hundredths(cell.score.value)} %` : "no score"}</span>
        {cell.score && <span className="text-sm text-muted">{intervalText(cell.score)}</span>}
      </Link>
      <p className="flex flex-wrap gap-x-2 text-sm text-muted">
        <span>n {whole(cell.score?.items ?? 0)}</span>
        {way && <span>{way}</span>}
        {flags.map(({ text, about }) => (
          <span key={text} title={about} className="text-warn">{text}</span>
        ))}
      </p>
    </div>
  );
}
