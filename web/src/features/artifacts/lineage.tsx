import { Link } from "@tanstack/react-router";
import { ChevronRight } from "lucide-react";

import type { ArtifactOut, RunOut } from "@/api";
import { bytes, whole } from "@/lib/format";

/** Artifact → stage → artifact, from left to right; many checkpoints of one stage stand as one stack. */
export function Lineage({ run, artifacts }: { run: RunOut; artifacts: readonly ArtifactOut[] }) {
  const made = run.detail.filter((stage) => artifacts.some((artifact) => artifact.stage_id === stage.id));
  return (
    <nav aria-label="Lineage" className="flex flex-wrap items-center gap-x-1.5 gap-y-2 border-b border-line px-4 py-3">
      {run.parent_run_id && (
        <>
          <Link to="/runs/$runId" params={{ runId: run.parent_run_id }} search={{ tab: "artifacts" }} className="rounded-md border border-dashed border-line-strong px-2 py-1 hover:bg-hover">
            <span className="block text-sm text-muted">branched from</span>
            <span className="font-mono text-sm">{run.parent_run_id}</span>
          </Link>
          <ChevronRight className="size-4 text-faint" aria-hidden />
        </>
      )}
      {made.map((stage, i) => {
        const mine = artifacts.filter((artifact) => artifact.stage_id === stage.id);
        const last = mine.at(-1);
        if (!last) return null;
        return (
          <span key={stage.id} className="flex items-center gap-1.5">
            {i > 0 && <ChevronRight className="size-4 text-faint" aria-hidden />}
            <span className="rounded-md border border-line bg-surface px-2 py-1" title={mine.map((artifact) => artifact.name).join(", ")}>
              <span className="block text-sm text-muted">{stage.id}</span>
              <span className="font-medium">{mine.length > 1 ? `${mine.length} ${last.kind}s` : last.name}</span>
              <span className="ml-1.5 text-sm text-muted">
                {last.step !== null && mine.length > 1 ? `to step ${whole(last.step)}, ` : ""}
                {bytes(mine.reduce((sum, artifact) => sum + (artifact.deleted_at ? 0 : artifact.size_bytes), 0))}
              </span>
            </span>
          </span>
        );
      })}
    </nav>
  );
}
