import { Check, CircleDashed, Monitor, X } from "lucide-react";

import type { PoolOut } from "@/api";
import { cn } from "@/lib/cn";
import { since, span } from "@/lib/format";
import { useNow } from "@/lib/now";

/** The controller looks every ten seconds: nothing for so long means that it does not run. */
const UNSEEN_SECONDS = 90;

/** Whether stages can be placed in it, by shape and colour, and since when nobody has looked. */
export function PoolState({ pool }: { pool: Pick<PoolOut, "spec" | "status"> }) {
  const now = useNow();
  const { ready, observed_at } = pool.status;
  const [Sign, look, text] =
    pool.spec.kind === "local"
      ? ([Monitor, "text-muted", "this machine"] as const)
      : ready === null
        ? ([CircleDashed, "text-faint", "not looked at yet"] as const)
        : ready
          ? ([Check, "text-ok", "ready"] as const)
          : ([X, "text-bad", "not ready"] as const);
  const silent = observed_at === null ? 0 : since(observed_at, now);
  return (
    <span className="inline-flex flex-wrap items-center gap-x-2">
      <span className={cn("inline-flex items-center gap-1.5 whitespace-nowrap", look)}>
        <Sign aria-hidden strokeWidth={2.5} className="size-3.5 shrink-0" />
        {text}
      </span>
      {silent > UNSEEN_SECONDS && (
        <span className="text-sm whitespace-nowrap text-warn" title="The controller looks every ten seconds. Does it run?">
          seen {span(silent)} ago
        </span>
      )}
    </span>
  );
}

/** Recipes that say `pool = "local"`, or name none, run in it. */
export function DefaultMark() {
  return (
    <span className="rounded-sm bg-accent-soft px-1.5 py-px text-xs font-medium text-accent" title='Recipes that name no pool, or say pool = "local", run here.'>
      default
    </span>
  );
}
