import type { RunSummary } from "@/api";

export type RunsPage = { readonly items: readonly RunSummary[]; readonly next_cursor: string | null };

/** What a look at the first page, and at what is active beyond it, changes in the pages that are here. Pure.
 *
 * The first page is replaced. A run that it pushed out stays, at the top of what follows, and each run stands once; of runs further down only what
 * they say is renewed, not their place: a full look (rare) puts that right.
 */
export function renewed<P extends RunsPage>(pages: readonly P[], first: P, active: readonly RunSummary[]): P[] {
  const [old, ...later] = pages;
  if (!old || later.length === 0) return [first];
  const fresh = new Map([...active, ...first.items].map((run) => [run.id, run]));
  const shown = new Set(first.items.map((run) => run.id));
  const pushedOut = old.items.filter((run) => !shown.has(run.id));
  const rest = (items: readonly RunSummary[]) => items.filter((run) => !shown.has(run.id)).map((run) => fresh.get(run.id) ?? run);
  return [
    { ...first, next_cursor: old.next_cursor },
    ...later.map((page, i) => ({ ...page, items: rest(i === 0 ? [...pushedOut, ...page.items] : page.items) })),
  ];
}
