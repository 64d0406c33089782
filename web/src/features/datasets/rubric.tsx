import { Check, CircleHelp, X } from "lucide-react";

import { cn } from "@/lib/cn";

import type { Clause } from "./trajectory-shape";

/** Each clause with its verdict: who says so, and why. */
export function Rubric({ clauses, score, reasons }: { clauses: readonly Clause[]; score: number | null; reasons: readonly string[] }) {
  const passed = clauses.filter((clause) => clause.passed === true).length;
  return (
    <section aria-label="Rubric" className="rounded-lg border border-line">
      <h3 className="flex flex-wrap items-baseline gap-x-3 border-b border-line px-3 py-1.5 font-medium">
        Rubric
        <span className="text-sm font-normal text-muted">
          {passed} of {clauses.length} hold{score !== null && `, score ${score.toFixed(2)}`}
        </span>
        {reasons.length > 0 && <span className="text-sm font-normal text-muted">{reasons.join("; ")}</span>}
      </h3>
      <ul>
        {clauses.map((clause) => {
          const Sign = clause.passed === null ? CircleHelp : clause.passed ? Check : X;
          return (
            <li key={clause.id} className="flex items-start gap-2 px-3 py-1 not-last:border-b not-last:border-line">
              <Sign aria-hidden className={cn("mt-0.5 size-4 shrink-0", clause.passed === null ? "text-muted" : clause.passed ? "text-ok" : "text-bad")} />
              <span className="sr-only">{clause.passed === null ? "undecided" : clause.passed ? "holds" : "fails"}</span>
              <div className="min-w-0 flex-1">
                <p className="break-words">
                  {clause.text || clause.id}
                  {!clause.mandatory && <span className="ml-2 text-sm text-muted">optional</span>}
                </p>
                {clause.why && <p className="text-sm break-words text-muted">{clause.why}</p>}
              </div>
              {clause.by && <span className="shrink-0 text-sm text-muted">by {clause.by}</span>}
            </li>
          );
        })}
      </ul>
    </section>
  );
}
