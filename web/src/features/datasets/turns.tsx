import { Check, TriangleAlert, Wrench, X } from "lucide-react";

import { cn } from "@/lib/cn";
import { written } from "@/lib/unknown";

import { Value } from "./json-view";
import type { Call, Turn } from "./trajectory-shape";
import { Changes } from "./world-view";

const LONG_CHARACTERS = 1200;
/** Of a system prompt, which is the same in many rows. */
const SYSTEM_CHARACTERS = 280;
const NAMES: Record<string, string> = { system: "System", user: "User", assistant: "Agent", tool: "Tool" };

/** Who said what; calls folded to one line each, with their answers inside. */
export function Turns({ turns, isOpen }: { turns: readonly Turn[]; isOpen: boolean }) {
  return (
    <ol className="flex max-w-4xl flex-col gap-2">
      {turns.map((turn, i) => (
        <li key={i} className={cn("rounded-lg border px-3 py-2", turn.role === "user" ? "border-transparent bg-selected" : turn.role === "assistant" ? "border-line bg-surface" : "border-line bg-sunken")}>
          <h4 className="text-sm font-medium text-muted">{NAMES[turn.role] ?? (turn.role || "?")}</h4>
          {turn.text && <Said text={turn.text} most={turn.role === "system" ? SYSTEM_CHARACTERS : LONG_CHARACTERS} />}
          {turn.calls.map((call, n) => (
            <CallView key={n} call={call} isOpen={isOpen} />
          ))}
        </li>
      ))}
    </ol>
  );
}

function Said({ text, most }: { text: string; most: number }) {
  const body = <p className="break-words whitespace-pre-wrap">{text}</p>;
  if (text.length <= most) return body;
  return (
    <details>
      <summary className="break-words">{text.slice(0, 140)}…</summary>
      {body}
    </details>
  );
}

/** Remade when all are unfolded or folded: between that, each is the reader's own. */
const CallView = ({ call, isOpen }: { call: Call; isOpen: boolean }) => <CallBox key={String(isOpen)} call={call} isOpen={isOpen} />;

function CallBox({ call, isOpen }: { call: Call; isOpen: boolean }) {
  return (
    <details open={isOpen} className="mt-1.5 rounded-md border border-line bg-bg">
      <summary className="flex flex-wrap items-center gap-x-2 gap-y-1 px-2 py-1 text-sm">
        <Wrench className="size-3.5 text-muted" aria-hidden />
        <span className="font-mono font-medium">{call.tool}</span>
        <span className="min-w-0 flex-1 truncate font-mono text-muted">{written(call.args)}</span>
        {call.fault && (
          <span className="inline-flex items-center gap-1 text-warn" title="Injected by the schedule, not the agent's doing">
            <TriangleAlert className="size-3.5" aria-hidden /> {call.fault} injected
          </span>
        )}
        {call.isReal && <span className="text-muted">real</span>}
        {call.ok !== null && (
          <span className={cn("inline-flex items-center gap-1", call.ok ? "text-ok" : "text-bad")}>
            {call.ok ? <Check className="size-3.5" aria-hidden /> : <X className="size-3.5" aria-hidden />}
            {call.ok ? "done" : "failed"}
          </span>
        )}
      </summary>
      <div className="flex flex-col gap-2 border-t border-line px-3 py-2">
        <Part title="Arguments" value={call.args} />
        <Part title="Answer" value={call.answer} />
        {call.changes.length > 0 && <Changes changes={call.changes} label={`Changes by ${call.tool}`} />}
      </div>
    </details>
  );
}

const Part = ({ title, value }: { title: string; value: unknown }) => (
  <div>
    <h5 className="text-sm text-muted">{title}</h5>
    <div className="font-mono text-sm">
      <Value value={value} />
    </div>
  </div>
);
