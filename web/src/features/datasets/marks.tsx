import { Check, CircleHelp, FlaskConical, ThumbsDown, ThumbsUp, X } from "lucide-react";

import type { ReviewOut } from "@/api";
import { Tooltip } from "@/components/ui/tooltip";
import { cn } from "@/lib/cn";

const GOOD = new Set(["kept", "pass", "train", "heldout", "right"]);
/** Neither good nor bad: somebody decides, or nobody could say. */
const OPEN = new Set(["review", "no_verdict", "partly", "infrastructure", "grader_error", "target_error", "quarantined"]);

export const fateTone = (fate: string): "ok" | "warn" | "bad" => (GOOD.has(fate) ? "ok" : OPEN.has(fate) ? "warn" : "bad");

/** A row's fate as a sign and a word. */
export function FateMark({ fate, className }: { fate: string; className?: string }) {
  const tone = fateTone(fate);
  const Sign = { ok: Check, warn: CircleHelp, bad: X }[tone];
  return (
    <span className={cn("inline-flex shrink-0 items-center gap-1 whitespace-nowrap", { ok: "text-ok", warn: "text-warn", bad: "text-bad" }[tone], className)}>
      <Sign className="size-3.5" strokeWidth={2.5} aria-hidden />
      {fate.replaceAll("_", " ")}
    </span>
  );
}

export function ReviewMark({ review }: { review: ReviewOut | null }) {
  if (!review) return null;
  const Sign = review.verdict === "accept" ? ThumbsUp : ThumbsDown;
  return (
    <span className={cn("inline-flex shrink-0 items-center gap-1 whitespace-nowrap", review.verdict === "accept" ? "text-ok" : "text-bad")} title={`by ${review.by}${review.note ? `: ${review.note}` : ""}`}>
      <Sign className="size-3.5" aria-hidden />
      {review.verdict}ed
    </span>
  );
}

/** Whatever no language model took part in says so. */
export function StandinTag() {
  return (
    <Tooltip says="Made by the rule-based stand-in, not by a language model. Never mixed into data that claims one.">
      <span className="inline-flex shrink-0 items-center gap-1 rounded-sm border border-warn/40 bg-warn-soft px-1.5 text-sm font-medium text-warn">
        <FlaskConical className="size-3" aria-hidden />
        stand-in
      </span>
    </Tooltip>
  );
}
