import { Ban, Check, CircleDashed, Hourglass, X } from "lucide-react";

import { cn } from "@/lib/cn";

import { type AnyState, TONE_TEXT, toneOf } from "./states";

/** A state as a sign: shape and colour. */
export function StateMark({ state, className }: { state: AnyState; className?: string }) {
  const tone = toneOf(state);
  const look = cn("size-3.5 shrink-0", TONE_TEXT[tone], className);
  if (tone === "live") {
    return (
      <span aria-hidden className={cn("inline-flex size-3.5 shrink-0 items-center justify-center", className)}>
        <span className="alive size-2 rounded-full bg-accent ring-3 ring-accent-soft" />
      </span>
    );
  }
  const Sign = { good: Check, bad: X, wait: CircleDashed, warn: Hourglass, off: Ban }[tone];
  return <Sign aria-hidden strokeWidth={2.5} className={look} />;
}

export function StateLabel({ state }: { state: AnyState }) {
  return (
    <span className={cn("inline-flex items-center gap-1.5 align-middle", TONE_TEXT[toneOf(state)])}>
      <StateMark state={state} />
      {state}
    </span>
  );
}
