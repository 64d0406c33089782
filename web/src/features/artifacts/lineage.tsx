import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import type { ArtifactOut } from "@/api";
import { artifactsGetOptions, artifactsLineageOptions } from "@/api/@tanstack/react-query.gen";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { columnsLayout, NODE, type Place, reduced } from "@/features/runs/layout";
import { cn } from "@/lib/cn";
import { bytes, whole } from "@/lib/format";

/** What an artifact was made from, back to its first sources, as its manifest says; also in other runs, where a branch began. */
export function Lineage({ runId, artifactId }: { runId: string; artifactId: string }) {
  const own = useQuery({ ...artifactsGetOptions({ path: { artifact_id: artifactId } }), placeholderData: (before) => before });
  const above = useQuery({ ...artifactsLineageOptions({ path: { artifact_id: artifactId } }), placeholderData: (before) => before });
  const error = own.error ?? above.error;
  if (error && !(own.data && above.data)) return <div className="p-4"><ProblemNotice error={error} /></div>;
  if (!own.data || !above.data) return <SkeletonLines count={2} className="p-4" />;
  const artifacts = [...above.data.items.filter((one) => one.id !== own.data.id), own.data];
  const known = new Set(artifacts.map((one) => one.id));
  const nodes = reduced(artifacts.map(({ id, parents }) => ({ id, needs: parents.filter((parent) => known.has(parent)) })));
  const { places, height } = columnsLayout(nodes);
  const width = Math.max(...[...places.values()].map((place) => place.x)) + NODE.width;
  return (
    <nav aria-label="Lineage" className="overflow-x-auto border-b border-line px-4 py-3">
      <p className="mb-2 text-sm text-muted">
        {above.data.items.length > 0 ? `What ${own.data.name} was made from` : `${own.data.name} was made from nothing that is recorded`}
      </p>
      <div className="relative" style={{ width, height }}>
        <svg width={width} height={height} className="absolute inset-0" aria-hidden>
          {nodes.flatMap(({ id, needs }) =>
            needs.map((need) => <path key={`${need} ${id}`} d={curve(places.get(need), places.get(id))} className="fill-none stroke-line-strong" strokeWidth="1.5" />),
          )}
        </svg>
        {artifacts.map((one) => (
          <Node key={one.id} artifact={one} place={places.get(one.id)} isShown={one.id === own.data.id} isForeign={one.run_id !== runId} />
        ))}
      </div>
    </nav>
  );
}

type NodeProps = { artifact: ArtifactOut; place: Place | undefined; isShown: boolean; isForeign: boolean };

function Node({ artifact, place, isShown, isForeign }: NodeProps) {
  return (
    <Link
      to="/runs/$runId"
      params={{ runId: artifact.run_id }}
      search={{ tab: "artifacts", artifact: artifact.id }}
      replace={!isForeign}
      aria-current={isShown ? "true" : undefined}
      title={`${artifact.kind} ${artifact.name}, ${bytes(artifact.size_bytes)}, run ${artifact.run_id}`}
      className={cn(
        "absolute flex flex-col justify-center rounded-md border bg-surface px-2.5 hover:bg-hover",
        isShown ? "border-accent" : "border-line-strong",
        isForeign && "border-dashed",
        artifact.deleted_at && "opacity-60",
      )}
      style={{ left: place?.x, top: place?.y, width: NODE.width, height: NODE.height }}
    >
      <span className="truncate font-medium">{artifact.name}</span>
      <span className="truncate text-sm text-muted">
        {artifact.kind}
        {artifact.step === null ? "" : ` at step ${whole(artifact.step)}`}
        {isForeign ? ` of ${artifact.run_id}` : ""}
      </span>
    </Link>
  );
}

function curve(from: Place | undefined, to: Place | undefined): string {
  if (!from || !to) return "";
  const [x1, y1, x2, y2] = [from.x + NODE.width, from.y + NODE.height / 2, to.x, to.y + NODE.height / 2];
  const middle = (x1 + x2) / 2;
  return `M${x1} ${y1} C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
}
