import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { AlertTriangle, FilePen, RotateCcw, ScrollText } from "lucide-react";

import type { AttemptOut, RunOut, StageOut } from "@/api";
import { logsReadOptions } from "@/api/@tanstack/react-query.gen";
import { Button, buttonClass } from "@/components/ui/button";
import { severity, visibleText } from "@/features/logs/lines";
import { cn } from "@/lib/cn";

const TAIL_LINES = 6;

type Props = { run: RunOut; stage: StageOut; sentence: string; onRetry: (from: string) => void };

/** Why it failed: the sentence, what the stage said last, and the three ways on. */
export function FailPanel({ run, stage, sentence, onRetry }: Props) {
  const attempt = stage.attempts.at(-1);
  return (
    <section aria-label="Why it failed" className="mt-3 mb-1.5 max-w-6xl rounded-lg border border-bad/40 bg-surface px-4 py-3">
      <p className="flex gap-2.5 font-medium">
        <AlertTriangle aria-hidden className="mt-0.5 size-4 shrink-0 text-bad" />
        <span className="min-w-0 break-words">{sentence}</span>
      </p>
      <div className="mt-2.5 ml-6.5 flex flex-col gap-2.5 max-sm:ml-0">
        {attempt && <LastWords attempt={attempt} />}
        <div className="flex flex-wrap gap-2">
          {attempt && (
            <Link from="/runs/$runId" search={(old) => ({ ...old, tab: "logs", stage: stage.id, attempt: undefined, rank: attempt.failed_rank || undefined, line: undefined })} className={buttonClass()}>
              <ScrollText /> Whole log
            </Link>
          )}
          <Button onClick={() => onRetry(stage.id)}>
            <RotateCcw /> Retry from {stage.id}
          </Button>
          <Link to="/runs/new" search={{ from: run.id }} className={buttonClass()}>
            <FilePen /> Correct the recipe
          </Link>
        </div>
      </div>
    </section>
  );
}

/** The end of the log of the rank that failed; nothing where there is none, as of a stage whose workload never began. */
function LastWords({ attempt }: { attempt: AttemptOut }) {
  const rank = attempt.failed_rank ?? 0;
  const { data } = useQuery({ ...logsReadOptions({ query: { attempt: attempt.id, rank, tail: TAIL_LINES } }), retry: false });
  const lines = (data?.lines ?? []).map(({ offset, text }) => ({ offset, text: visibleText(text) })).filter(({ text }) => text.trim() !== "");
  if (lines.length === 0) return null;
  return (
    <ul aria-label={`End of the log of ${attempt.stage_id}${rank > 0 ? `, rank ${rank}` : ""}`} className="rounded-md border border-line bg-sunken px-2.5 py-1.5 font-mono text-sm break-words whitespace-pre-wrap">
      {lines.map(({ offset, text }) => (
        <li key={offset} className={cn(severity(text) === "bad" ? "text-bad" : "text-muted")}>
          {text}
        </li>
      ))}
    </ul>
  );
}
