import type { RunSummary, StageState } from "@/api";
import { cn } from "@/lib/cn";

import { TONE_FILL, toneOf } from "./states";

/** The stages of a run as a row of bars, in recipe order. */
export function StageStrip({ stages }: { stages: RunSummary["stages"] }) {
  const said = stages.map((stage) => `${stage.id} ${stage.state}`).join(", ");
  return (
    <div role="img" aria-label={`Stages: ${said}`} title={said} className="flex w-24 gap-0.5">
      {stages.map((stage) => {
        const tone = toneOf(stage.state as StageState);
        return <span key={stage.id} className={cn("h-1.5 min-w-0.5 flex-1 rounded-xs", TONE_FILL[tone], tone === "live" && "alive", tone === "off" && "opacity-50")} />;
      })}
    </div>
  );
}
