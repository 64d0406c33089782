import { AlertTriangle, History } from "lucide-react";
import type { ReactNode } from "react";

import { cn } from "@/lib/cn";
import { toProblem } from "@/lib/problem";

import { Code } from "./code";
import { CopyButton } from "./copy";

/** An error as people can use it: what, why, what to do, and an id for whoever reads the server's log. */
export function ProblemNotice({ error, children }: { error: unknown; children?: ReactNode }) {
  const problem = toProblem(error);
  return (
    <div role="alert" className="flex gap-2.5 rounded-lg border border-bad/30 bg-bad-soft px-3 py-2.5">
      <AlertTriangle className="mt-0.5 size-4 shrink-0 text-bad" aria-hidden />
      <div className="min-w-0 flex-1">
        <p className="font-medium break-words">{problem.detail || problem.title}</p>
        {problem.hint && <p className="mt-0.5 text-muted">{problem.hint}</p>}
        <p className="mt-1 flex flex-wrap items-center gap-x-2 font-mono text-xs text-muted">
          <span>{problem.code}</span>
          {problem.status > 0 && <span>HTTP {problem.status}</span>}
          {problem.trace_id && (
            <span className="inline-flex items-center gap-1">
              trace {problem.trace_id}
              <CopyButton text={problem.trace_id} label="Copy the trace id" small />
            </span>
          )}
        </p>
        {children}
      </div>
    </div>
  );
}

/** What is shown is good but may be old: the last attempt to renew it failed. */
export function Stale({ error, className }: { error: unknown; className?: string }) {
  if (!error) return null;
  const problem = toProblem(error);
  return (
    <p role="status" className={cn("flex items-center gap-1.5 text-sm text-warn", className)} title={[problem.hint, problem.code].filter(Boolean).join(" · ")}>
      <History className="size-3.5 shrink-0" aria-hidden />
      Not renewed: {problem.detail || problem.title}
    </p>
  );
}

/** Nothing here yet, and the command that changes that. */
export function Empty({ title, children, command, action }: { title: string; children?: ReactNode; command?: string; action?: ReactNode }) {
  return (
    <div className="flex flex-col items-center gap-2 px-6 py-14 text-center">
      <h2 className="text-lg font-medium">{title}</h2>
      {children && <div className="max-w-md text-muted">{children}</div>}
      {command && <Code text={command} />}
      {action && <div className="mt-1">{action}</div>}
    </div>
  );
}
