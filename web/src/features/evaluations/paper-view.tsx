import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { LeaderboardRow, PaperCell, PaperTableOut } from "@/api";
import { evaluationsPaperOptions } from "@/api/@tanstack/react-query.gen";
import { Toggle } from "@/components/ui/field";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";

import { hundredths, intervalText, type Ours, oursFor, paperText, targetName } from "./board-shape";

/** Of ours, beside up to seven of the paper's. */
const MOST_COLUMNS = 4;

type Props = { name: PaperTableOut["name"]; rows: readonly LeaderboardRow[]; isWhole: boolean; onWhole: (isWhole: boolean) => void };

/** A table of the paper with our columns before its own. What one of them lacks stays empty. */
export function PaperView({ name, rows, isWhole, onWhole }: Props) {
  const { data: table, error } = useQuery({ ...evaluationsPaperOptions({ path: { table: name } }), staleTime: Infinity });
  if (error && !table) return <div className="p-4"><ProblemNotice error={error} /></div>;
  if (!table) return <SkeletonLines count={10} className="p-4" />;
  const measured = rows.filter((row) => table.rows.some((paper) => oursFor(paper, row)));
  const ours = measured.slice(0, MOST_COLUMNS);
  const lines = table.rows.map((paper) => ({ paper, ours: ours.map((row) => oursFor(paper, row)) }));
  const shown = isWhole ? lines : lines.filter((line) => line.ours.some(Boolean));
  const notes = new Map(shown.flatMap((line) => line.ours.flatMap((one) => (one?.note ? [[line.paper.benchmark, one.note] as const] : []))));
  return (
    <>
      <div className="flex flex-wrap items-center gap-3 px-4 py-2">
        <h2 className="font-medium">{table.title}</h2>
        <Toggle label={`All ${table.rows.length} benchmarks`} pressed={isWhole} onChange={onWhole}>
          All {table.rows.length} benchmarks
        </Toggle>
        {measured.length > ours.length && <span className="text-sm text-muted">{measured.length - ours.length} more checkpoints have figures: filter by name to see them.</span>}
      </div>
      {shown.length === 0 ? (
        <Empty title="None of these was asked a benchmark of this table" command={`abruzzi run recipes/evals/k2-${name}.toml`}>
          This recipe asks as the paper did, as far as the sets are here; a file that is missing is named with its owner’s address.
        </Empty>
      ) : (
        <Table label={table.title}>
          <thead>
            <tr>
              <Head className="sticky left-0 z-10 bg-bg">Benchmark</Head>
              <Head title="Of the paper">Setting</Head>
              {ours.map((row) => (
                <Head key={row.target} right className="text-text!" title={row.run_name}>{targetName(row)}</Head>
              ))}
              {table.models.map((model, i) => (
                <Head key={model} right className={cn(i === 0 && "border-l")}>{model}</Head>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((line) => (
              <PaperLine key={line.paper.benchmark} paper={line.paper} ours={line.ours} models={table.models} />
            ))}
          </tbody>
        </Table>
      )}
      <div className="max-w-4xl px-4 py-3 text-sm text-muted">
        <p>
          Per cent. Ours in front with its 95 % interval over items; the paper’s as it prints them, * taken from the vendor. Empty: nobody measured it. Other prompts, other days: for orientation.
        </p>
        {notes.size > 0 && (
          <ul aria-label="Where ours is another measure" className="mt-1 list-disc pl-4">
            {[...notes].map(([benchmark, note]) => (
              <li key={benchmark}>{benchmark}: {note}.</li>
            ))}
          </ul>
        )}
      </div>
    </>
  );
}

function PaperLine({ paper, ours, models }: { paper: PaperCell; ours: readonly (Ours | null)[]; models: readonly string[] }) {
  return (
    <tr className="hover:bg-hover">
      <th scope="row" className="sticky left-0 z-10 border-b border-line bg-bg py-1 pr-3 pl-4 text-left font-medium whitespace-nowrap">{paper.benchmark}</th>
      <Cell className="whitespace-nowrap text-muted">{paper.setting}</Cell>
      {ours.map((one, i) => (
        <Cell key={i} right>
          {one && (
            <Link to="/evaluations/$evaluationId" params={{ evaluationId: one.evaluationId }} className="hover:underline" title={`95 % interval ${intervalText(one.figure)}, n ${one.figure.items}`}>
              <span className="font-semibold">{hundredths(one.figure.value)}</span>
              <span className="ml-1.5 text-sm text-muted">{intervalText(one.figure)}</span>
            </Link>
          )}
        </Cell>
      ))}
      {models.map((model, i) => (
        <Cell key={model} right className={cn(i === 0 ? "border-l" : "text-muted")}>{paperText(paper.values[model])}</Cell>
      ))}
    </tr>
  );
}
