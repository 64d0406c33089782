import { Link } from "@tanstack/react-router";
import { ArrowRight, Hourglass } from "lucide-react";
import type { ReactNode } from "react";

import type { WaitOut } from "@/api";
import { roughly, since, span } from "@/lib/format";
import { useNow } from "@/lib/now";

import { lackOf, othersSentence, type Shares, waitWords } from "./wait";

export type Waiting = { readonly stage: string; readonly wait: WaitOut };

/** Why nothing runs: the sentence, then for each stage that waits its place, what it lacks and when it may start. */
export function WaitPanel({ sentence, waiting }: { sentence: string; waiting: readonly Waiting[] }) {
  return (
    <section aria-label="Why it waits" className="mt-3 mb-1.5 max-w-6xl rounded-lg border border-warn/45 bg-surface px-4 py-3">
      <p className="flex gap-2.5 font-medium">
        <Hourglass aria-hidden className="mt-0.5 size-4 shrink-0 text-warn" />
        {sentence}
      </p>
      {waiting.map(({ stage, wait }) => (
        <Numbers key={stage} stage={stage} wait={wait} isOnly={waiting.length === 1} isTold={sentence.includes(wait.message)} />
      ))}
    </section>
  );
}

function Numbers({ stage, wait, isOnly, isTold }: Waiting & { isOnly: boolean; isTold: boolean }) {
  const now = useNow();
  const lack = lackOf(wait);
  return (
    <div className="mt-3 ml-6.5">
      {!isOnly && <h3 className="mb-1 font-medium">{stage}</h3>}
      <dl className="grid grid-cols-[repeat(auto-fit,minmax(8rem,1fr))] gap-x-6 gap-y-3">
        {wait.position !== null && (
          <Figure title="Place in the queue" value={`${wait.position} of ${wait.queue_length}`} note={wait.position === 1 ? "nobody is ahead" : `${wait.position - 1} ahead`} />
        )}
        <Figure title="Asks for" value={`${lack.asked} ${lack.title}`} note={[othersSentence(wait, lack.resource), `for ${wait.ranks} ${wait.ranks === 1 ? "rank" : "ranks"}`].filter(Boolean).join(" ")} />
        {lack.free !== null && (
          <Figure title="Free" value={`${lack.free}${lack.quota === null ? "" : ` of ${lack.quota}`} ${lack.title}`} note={lack.shares && <LackBar shares={lack.shares} title={lack.title} />} />
        )}
        <Figure title="Waits" value={span(since(wait.since, now))} note={waitWords(wait.code)} />
        <Figure title="May start" value={wait.eta_seconds === null ? "no estimate" : `in about ${roughly(wait.eta_seconds)}`} note={wait.eta_basis} />
      </dl>
      <p className="mt-3 flex flex-wrap items-baseline gap-x-4 gap-y-1">
        <Link to="/pools/$name" params={{ name: wait.pool }} className="inline-flex items-center gap-1 font-medium text-accent hover:underline">
          Queue of {wait.pool} <ArrowRight aria-hidden className="size-3.5" />
        </Link>
        {wait.message && !isTold && (
          <span className="min-w-0 text-sm text-muted">
            The cluster says: <q className="break-words">{wait.message}</q>
          </span>
        )}
      </p>
    </div>
  );
}

function Figure({ title, value, note }: { title: string; value: string; note: ReactNode }) {
  return (
    <div>
      <dt className="text-sm text-muted">{title}</dt>
      <dd>
        <span className="text-lg font-medium whitespace-nowrap">{value}</span>
        {note && <div className="text-sm text-muted">{note}</div>}
      </dd>
    </div>
  );
}

/** What others use, and what this one asks for behind it; the line is where the quota ends. */
function LackBar({ shares, title }: { shares: Shares; title: string }) {
  return (
    <div role="img" aria-label={`${title}: used, asked for, and the quota's end`} className="relative mt-1 flex h-1.5 rounded-full bg-line">
      <span className="h-full rounded-l-full bg-accent" style={{ width: `${shares.used * 100}%` }} />
      <span className="hatched h-full text-warn" style={{ width: `${shares.asked * 100}%` }} />
      <span className="absolute -inset-y-1 w-0.5 -translate-x-1/2 bg-text" style={{ left: `${shares.quota * 100}%` }} />
    </div>
  );
}
