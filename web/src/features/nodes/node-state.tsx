import { Ban, Check, CircleHelp, Hourglass, ShieldAlert, Unplug } from "lucide-react";

import type { NodeState } from "@/api";
import { cn } from "@/lib/cn";

import { type Tone, toneOf } from "./nodes";

const SIGNS: Record<NodeState, typeof Check> = { ready: Check, suspect: CircleHelp, lost: Unplug, quarantined: ShieldAlert, draining: Hourglass, drained: Ban };
const TEXT: Record<Tone, string> = { good: "text-ok", bad: "text-bad", warn: "text-warn", off: "text-muted" };

/** A node's state by shape and colour. */
export function NodeStateLabel({ state, children }: { state: NodeState; children?: string | undefined }) {
  const Sign = SIGNS[state];
  return (
    <span className={cn("inline-flex items-center gap-1.5 whitespace-nowrap", TEXT[toneOf(state)])}>
      <Sign aria-hidden strokeWidth={2.5} className="size-3.5 shrink-0" />
      {children ?? state}
    </span>
  );
}
