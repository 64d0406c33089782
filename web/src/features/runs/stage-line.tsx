import type { StageOut } from "@/api";
import { Progress } from "@/components/ui/progress";
import { cn } from "@/lib/cn";
import { percent, since, span, whole } from "@/lib/format";
import { useNow } from "@/lib/now";

import { StateLabel } from "./state-mark";
import { tookSeconds } from "./states";

const SILENT_SECONDS = 30;

/** The chosen stage in one row: progress with ETA, and for each rank where it is and when it was last heard. */
export function StageLine({ stage }: { stage: StageOut }) {
  const now = useNow();
  const attempt = stage.attempts.at(-1);
  const state = stage.state;
  const isRunning = state === "running";
  const took = tookSeconds(stage, now);
  const reason = stage.reason || (state === "pending" ? attempt?.reason : null);
  return (
    <section aria-label={`Stage ${stage.id}`} className="flex flex-wrap items-center gap-x-5 gap-y-1.5 border-t border-line px-4 py-2">
      <h2 className="flex items-center gap-2.5">
        <span className="font-medium">{stage.id}</span>
        <StateLabel state={state} />
        {attempt && attempt.number > 1 && <span className="text-muted">attempt {attempt.number}</span>}
      </h2>
      {isRunning && (
        <div className="flex min-w-56 flex-1 items-center gap-3">
          <Progress share={stage.progress} label={`Progress of stage ${stage.id}`} />
          <span className="whitespace-nowrap">{stage.progress === null ? "" : percent(stage.progress)}</span>
          {stage.eta_seconds !== null && <span className="whitespace-nowrap text-muted">{span(stage.eta_seconds)} left</span>}
        </div>
      )}
      {isRunning && attempt && attempt.ranks.length > 0 && (
        <ul className="flex flex-wrap gap-x-4 gap-y-0.5 text-sm">
          {attempt.ranks.map((rank) => {
            const silent = since(rank.heartbeat_at, now);
            return (
              <li key={rank.rank} className="flex gap-1.5 text-muted" title={rank.message || undefined}>
                {attempt.ranks.length > 1 && <span>rank {rank.rank}</span>}
                <span>{rank.phase}</span>
                <span className="text-text">
                  step {whole(rank.step)}
                  {rank.total_steps !== null && ` / ${whole(rank.total_steps)}`}
                </span>
                {rank.phase !== "ended" && <span className={cn(silent > SILENT_SECONDS && "font-medium text-warn")}>last step {span(silent)} ago</span>}
              </li>
            );
          })}
        </ul>
      )}
      {isRunning && attempt && attempt.ranks.length === 0 && <span className="text-sm text-muted">Starting: no rank has reported yet.</span>}
      {!isRunning && state !== "pending" && took !== null && <span className="text-sm text-muted">took {span(took)}</span>}
      {stage.gate && <span className="text-sm text-muted">gate <code className="font-mono">{stage.gate}</code></span>}
      {!isRunning && reason && <p className="min-w-0 flex-1 truncate text-muted" title={reason}>{reason}</p>}
    </section>
  );
}
