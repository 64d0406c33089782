import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { Download, X } from "lucide-react";
import { useRef } from "react";

import { evaluationsLeaderboardOptions } from "@/api/@tanstack/react-query.gen";
import type { EvaluationsSearch } from "@/app/search";
import { Button, buttonClass } from "@/components/ui/button";
import { Input, Segments, Select } from "@/components/ui/field";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { boardCsv, sorted } from "@/features/evaluations/board-shape";
import { LeaderboardTable } from "@/features/evaluations/leaderboard-table";
import { PaperView } from "@/features/evaluations/paper-view";
import { useAddressText } from "@/lib/address-text";
import { useShortcuts } from "@/lib/keys";
import { usePageTitle } from "@/lib/page-title";

const route = getRouteApi("/evaluations");
const LOOK_MILLISECONDS = 15_000;
const VIEWS = [["ours", "Leaderboard"], ["instruct", "Beside K2-Instruct"], ["base", "Beside K2-Base"]] as const;

/** Checkpoints × suites, or beside the paper's tables. */
export function EvaluationsPage() {
  usePageTitle("Evaluations");
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const set = (change: { [K in keyof EvaluationsSearch]?: EvaluationsSearch[K] | undefined }) => void navigate({ search: (old) => ({ ...old, ...change }), replace: true });
  const { q, recipe, run, sort, asc = false, paper } = search;
  const query = { ...(q ? { q } : {}), ...(recipe ? { recipe } : {}), ...(run ? { run } : {}) };
  const { data, error } = useQuery({ ...evaluationsLeaderboardOptions({ query }), refetchInterval: LOOK_MILLISECONDS, placeholderData: (before) => before });
  const field = useRef<HTMLInputElement>(null);
  const isFiltered = Boolean(q || recipe || run);
  const rows = data ? sorted(data.rows, sort, asc) : [];
  // The best first, then the worst, then as they came.
  const onSort = (suite: string) => set(sort !== suite ? { sort: suite, asc: undefined } : asc ? { sort: undefined, asc: undefined } : { asc: true });
  useShortcuts("Evaluations", {
    "/": ["Find", () => field.current?.focus()],
    p: ["Beside the paper", () => set({ paper: paper === undefined ? "instruct" : paper === "instruct" ? "base" : undefined })],
  });
  return (
    <div className="flex flex-col pb-8">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg leading-7 font-semibold">Evaluations</h1>
        <Filter field={field} q={q} recipe={recipe} recipes={data?.rows.map((row) => row.recipe_name) ?? []} onChange={set} />
        {run && (
          <Link to="/evaluations" search={(old) => ({ ...old, run: undefined })} className="inline-flex h-7 items-center gap-1 rounded-md bg-selected px-2 text-sm text-accent [&_svg]:size-3.5" title="Of all runs">
            run {run} <X aria-hidden />
          </Link>
        )}
        <div className="flex-1" />
        <Stale error={data ? error : null} />
        <Segments label="View" value={paper ?? "ours"} options={VIEWS} onChange={(view) => set({ paper: view === "ours" ? undefined : view })} />
        <Button disabled={rows.length === 0} onClick={() => download(boardCsv(rows))}>
          <Download /> CSV
        </Button>
      </div>
      {error && !data && <div className="p-4"><ProblemNotice error={error} /></div>}
      {!data && !error && <SkeletonLines count={8} className="p-4" />}
      {data && rows.length === 0 && (isFiltered ? <Empty title="None of them" action={<Button onClick={() => set({ q: undefined, recipe: undefined, run: undefined })}>Clear the filter</Button>} /> : <Nothing />)}
      {data && rows.length > 0 && paper && <PaperView name={paper} rows={rows} isWhole={search.all ?? false} onWhole={(all) => set({ all: all || undefined })} />}
      {data && rows.length > 0 && !paper && (
        <>
          <LeaderboardTable rows={rows} suites={data.suites} sort={sort} asc={asc} onSort={onSort} />
          <p className="max-w-4xl px-4 py-3 text-sm text-muted">
            The newest evaluation of each, per cent with its 95 % interval over items; n counts items with a score. Two intervals that overlap say little: open a figure to compare it with another, item by item.
            {data.left_out > 0 && ` ${data.left_out} older checkpoints are not shown: filter to see them.`}
          </p>
        </>
      )}
    </div>
  );
}

type FilterProps = { field: React.RefObject<HTMLInputElement | null>; q: string | undefined; recipe: string | undefined; recipes: readonly string[]; onChange: (change: { q?: string | undefined; recipe?: string | undefined }) => void };

function Filter({ field, q, recipe, recipes, onChange }: FilterProps) {
  const [text, setText] = useAddressText(q ?? "", (next) => onChange({ q: next || undefined }));
  const names = [...new Set([...recipes, ...(recipe ? [recipe] : [])])].sort();
  return (
    <>
      <Input ref={field} type="search" aria-label="Filter" placeholder="Run, checkpoint or model" value={text} maxLength={100} className="w-56" onChange={(event) => setText(event.target.value)} />
      <Select label="Recipe" value={recipe ?? ""} onChange={(event) => onChange({ recipe: event.target.value || undefined })}>
        <option value="">All recipes</option>
        {names.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </Select>
    </>
  );
}

function Nothing() {
  return (
    <Empty title="Nothing has been evaluated yet" command="abruzzi eval --suite demo --target latest" action={<Link to="/runs/new" className={buttonClass("primary")}>New run</Link>}>
      A stage of kind <code className="font-mono text-sm">evaluate</code> asks suites of questions and writes every answer down; its figures appear here. With this command a checkpoint that you have is evaluated.
    </Empty>
  );
}

function download(csv: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
  link.download = "leaderboard.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}
