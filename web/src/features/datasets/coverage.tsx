import { useMemo, useState } from "react";

import type { ArtifactOut } from "@/api";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { strokeOf } from "@/features/metrics/palette";
import { whole } from "@/lib/format";
import { recordsOf, textOf } from "@/lib/unknown";

import { Bars } from "./bars";
import { coverageOf, type Point, pointsOf } from "./coverage-shape";
import type { Change } from "./filters";
import { useFacts } from "./queries";

const SIZE = 520;

/** What a catalogue of tools covers: by server, by domain, and as a map where the stage has made one. */
export function Coverage({ artifact, hasPoints, onView }: { artifact: ArtifactOut; hasPoints: boolean; onView: (change: Change) => void }) {
  const catalogue = useFacts(artifact.id, "catalogue");
  if (catalogue.error) return <ProblemNotice error={catalogue.error} />;
  if (!catalogue.data) return <SkeletonLines count={6} />;
  const [real, synthetic] = coverageOf(catalogue.data);
  const quarantined = recordsOf(catalogue.data.quarantined);
  const show = (q: string) => onView({ tab: "tools", q, row: undefined, where: undefined, fate: undefined });
  return (
    <section aria-label="Coverage" className="flex flex-col gap-5">
      <div className="grid gap-x-10 gap-y-6 lg:grid-cols-2">
        {real.length > 0 && <Bars title="Real tools by server" counts={real} onChoose={show} />}
        {synthetic.length > 0 && <Bars title="Synthetic tools by domain" counts={synthetic} onChoose={(domain) => show(`synthetic:${domain}/`)} />}
      </div>
      {quarantined.length > 0 && (
        <p className="text-warn">
          Quarantined servers: {quarantined.map((fault) => `${textOf(fault.server)} ${textOf(fault.version)} (${textOf(fault.reason)})`).join(", ")}
        </p>
      )}
      {hasPoints && <TheMap artifact={artifact} onShow={show} />}
    </section>
  );
}

function TheMap({ artifact, onShow }: { artifact: ArtifactOut; onShow: (name: string) => void }) {
  const coverage = useFacts(artifact.id, "coverage");
  const points = useMemo(() => (coverage.data ? pointsOf(coverage.data, SIZE) : []), [coverage.data]);
  const [near, setNear] = useState<Point | null>(null);
  if (coverage.error) return <ProblemNotice error={coverage.error} />;
  if (!coverage.data) return <SkeletonLines count={6} />;
  const groups = [...new Set(points.map((point) => point.group))].sort();
  const real = points.filter((point) => point.isReal).length;
  // A path a group draws thousands of points with a few elements.
  const dots = (group: string, isReal: boolean) => points.filter((point) => point.group === group && point.isReal === isReal).map(({ x, y }) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`).join("");
  const find = (x: number, y: number) => {
    const nearest = points.reduce<Point | null>((best, point) => (best && distance(best, x, y) <= distance(point, x, y) ? best : point), null);
    setNear(nearest && distance(nearest, x, y) < 100 ? nearest : null);
  };
  return (
    <figure className="flex flex-col gap-2">
      <figcaption className="font-medium">
        Map of the tools <span className="text-sm font-normal text-muted">{whole(real)} real (large), {whole(points.length - real)} synthetic; near each other where they are said alike</span>
      </figcaption>
      <div className="flex flex-wrap gap-5">
        <svg
          viewBox={`0 0 ${SIZE} ${SIZE}`}
          role="img"
          aria-label={`Map of ${points.length} tools`}
          className="w-full max-w-xl rounded-lg border border-line bg-surface"
          onMouseMove={(event) => {
            const box = event.currentTarget.getBoundingClientRect();
            find(((event.clientX - box.left) / box.width) * SIZE, ((event.clientY - box.top) / box.height) * SIZE);
          }}
          onMouseLeave={() => setNear(null)}
          onClick={() => near && onShow(near.name)}
        >
          {groups.map((group, i) => (
            <g key={group} className="fill-none" style={{ stroke: strokeOf(i).color }} strokeLinecap="round">
              <path d={dots(group, false)} strokeWidth="3.5" opacity="0.7" />
              <path d={dots(group, true)} strokeWidth="8" />
            </g>
          ))}
          {near && <circle cx={near.x} cy={near.y} r="7" className="fill-none stroke-text" strokeWidth="1.5" />}
        </svg>
        <div className="min-w-48 flex-1 text-sm">
          <p className="mb-2 h-10">{near ? <><span className="font-mono">{near.name}</span><br /><span className="text-muted">{near.group}</span></> : <span className="text-muted">Point at a dot for its tool; click it to open the list there.</span>}</p>
          <ul className="columns-2 gap-4">
            {groups.map((group, i) => (
              <li key={group} className="flex items-center gap-1.5">
                <span aria-hidden className="size-2.5 shrink-0 rounded-full" style={{ background: strokeOf(i).color }} />
                <span className="truncate">{group}</span>
              </li>
            ))}
          </ul>
        </div>
      </div>
    </figure>
  );
}

const distance = (point: Point, x: number, y: number): number => (point.x - x) ** 2 + (point.y - y) ** 2;
