import type { RunOut } from "@/api";
import { Toggle } from "@/components/ui/field";
import { Cell, Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";

import { diffOf, flatten } from "./diff";

/** Resolved recipes side by side: only what differs, unless asked for all. Marked is what is not as in the baseline. */
export function RecipeDiff({ runs, base, all, onAll }: { runs: readonly RunOut[]; base: string; all: boolean; onAll: (all: boolean) => void }) {
  const baseAt = Math.max(0, runs.findIndex((run) => run.id === base));
  const rows = diffOf(runs.map((run) => flatten(run.recipe)));
  const shown = all ? rows : rows.filter((row) => row.differs);
  return (
    <section aria-label="Recipe">
      <header className="flex items-center gap-2 px-4 pb-2">
        <h2 className="font-medium">Recipe</h2>
        <span className="text-sm text-muted">{all ? `${rows.length} keys` : `${shown.length} of ${rows.length} keys differ`}</span>
        <div className="flex-1" />
        <Toggle label="All keys, also those that are the same" pressed={all} onChange={onAll}>
          All keys
        </Toggle>
      </header>
      {shown.length === 0 ? (
        <p className="px-4 pb-2 text-muted">These runs have the same recipe.</p>
      ) : (
        <Table label="Recipe">
          <thead>
            <tr>
              <Head>Key</Head>
              {runs.map((run) => (
                <Head key={run.id}>
                  {run.name}
                  {run.id === base && runs.length > 1 && <span className="font-normal text-faint"> baseline</span>}
                </Head>
              ))}
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={row.key}>
                <Cell className="font-mono text-sm text-muted">{row.key}</Cell>
                {row.values.map((value, i) => (
                  <Cell key={runs[i]?.id ?? i} className={cn("max-w-96 truncate font-mono text-sm", row.differs && value !== row.values[baseAt] && "bg-selected")} title={value ?? undefined}>
                    {value ?? <span className="text-faint">not set</span>}
                  </Cell>
                ))}
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </section>
  );
}
