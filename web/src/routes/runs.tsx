import { getRouteApi, Link } from "@tanstack/react-router";
import { GitCompareArrows, Plus, Search } from "lucide-react";
import { useRef } from "react";

import type { RunState } from "@/api";
import type { RunsSearch } from "@/app/search";
import { Button, buttonClass } from "@/components/ui/button";
import { Kbd } from "@/components/ui/code";
import { Input, Toggle } from "@/components/ui/field";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { RunsTable } from "@/features/runs/table";
import { useRuns } from "@/features/runs/use-runs";
import { useAddressText } from "@/lib/address-text";
import { useShortcuts } from "@/lib/keys";
import { usePageTitle } from "@/lib/page-title";

const route = getRouteApi("/runs");

const FILTERS: readonly (readonly [string, readonly RunState[]])[] = [
  ["Active", ["pending", "running", "cancelling", "interrupted"]],
  ["Succeeded", ["succeeded"]],
  ["Failed", ["failed"]],
  ["Cancelled", ["cancelled"]],
];

export function RunsPage() {
  usePageTitle("Runs");
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const q = search.q ?? "";
  const sort = search.sort ?? "created";
  const ascending = search.sort ? (search.asc ?? false) : false;
  const field = useRef<HTMLInputElement>(null);
  const states = search.state ?? [];
  const selected = search.sel ?? [];
  const { runs, error, isPending, hasNextPage, isFetchingNextPage, fetchNextPage } = useRuns({ q, state: search.state, sort, ascending });

  const set = (change: Partial<RunsSearch>) => void navigate({ search: (old) => ({ ...old, ...change }), replace: true });
  const [text, setText] = useAddressText(q, (next) => set({ q: next || undefined }));
  const toggleStates = (group: readonly RunState[], on: boolean) => {
    const next = on ? [...states, ...group] : states.filter((state) => !group.includes(state));
    set({ state: next.length > 0 ? next : undefined });
  };
  const compare = () => selected.length > 1 && void navigate({ to: "/compare", search: { runs: selected } });
  useShortcuts("Runs", { "/": ["Filter", () => field.current?.focus()] });

  const isFiltered = q !== "" || states.length > 0;
  return (
    <div className="flex h-full flex-col">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg font-semibold">Runs</h1>
        <div className="relative">
          <Search aria-hidden className="pointer-events-none absolute top-1.5 left-2 size-4 text-faint" />
          <Input
            ref={field}
            type="search"
            value={text}
            onChange={(event) => setText(event.target.value)}
            onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
            placeholder="Name, recipe or id"
            aria-label="Filter by name, recipe or id"
            className="w-56 pl-7"
          />
        </div>
        <div role="group" aria-label="Filter by state" className="flex gap-1">
          {FILTERS.map(([title, group]) => (
            <Toggle key={title} label={`Only ${title.toLowerCase()}`} pressed={group.every((state) => states.includes(state))} onChange={(on) => toggleStates(group, on)}>
              {title}
            </Toggle>
          ))}
        </div>
        <div className="flex-1" />
        {selected.length > 0 && (
          <>
            <span className="text-sm text-muted">{selected.length} selected</span>
            <Button look="ghost" onClick={() => set({ sel: undefined })}>
              Clear
            </Button>
            <Button onClick={compare} disabled={selected.length < 2} title={selected.length < 2 ? "Select another run" : undefined}>
              <GitCompareArrows /> Compare <Kbd>c</Kbd>
            </Button>
          </>
        )}
        <Link to="/runs/new" className={buttonClass("primary")}>
          <Plus /> New run
        </Link>
      </div>
      {error && isPending && (
        <div className="p-4">
          <ProblemNotice error={error} />
        </div>
      )}
      {isPending && !error && <SkeletonLines count={10} className="p-4" />}
      {!isPending && runs.length === 0 && !isFiltered && (
        <Empty title="No runs yet" command="abruzzi run recipes/tiny.toml" action={<Link to="/runs/new" className={buttonClass("primary")}>New run</Link>}>
          A run executes a recipe: corpus, tokenizer, training, evaluation. This one trains a small model on real text in a few minutes.
        </Empty>
      )}
      {!isPending && runs.length === 0 && isFiltered && (
        <Empty
          title="No run matches"
          action={
            <Button
              onClick={() => {
                setText("");
                set({ q: undefined, state: undefined });
              }}
            >
              Clear the filter
            </Button>
          }
        />
      )}
      {runs.length > 0 && (
        <RunsTable
          runs={runs}
          sort={sort}
          ascending={ascending}
          onSort={(by, up) => set({ sort: by === "created" && !up ? undefined : by, asc: up || undefined })}
          selected={selected}
          onSelect={(ids) => set({ sel: ids.length > 0 ? ids : undefined })}
          onCompare={compare}
          onEnd={() => {
            if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
          }}
        />
      )}
      {runs.length > 0 && (
        <footer className="flex gap-4 border-t border-line px-4 py-1.5 text-sm text-muted">
          <span>
            {runs.length} {runs.length === 1 ? "run" : "runs"}
            {hasNextPage && " loaded; scroll for more"}
          </span>
          <Stale error={error} />
        </footer>
      )}
    </div>
  );
}
