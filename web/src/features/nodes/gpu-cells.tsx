import type { NodeOut } from "@/api";
import { cn } from "@/lib/cn";

import { type Gpus, gpuCount, gpuSentence, gpusOf } from "./nodes";

const MOST = 16;
const LOOKS: readonly (readonly [keyof Gpus, string])[] = [
  ["used", "bg-accent"],
  ["free", "border border-line-strong"],
  ["held", "hatched text-line-strong"],
  ["sick", "hatched text-bad"],
];

/** A square for each GPU of a node: filled when used, empty when free, hatched when nobody gets it. */
export function GpuCells({ node }: { node: NodeOut }) {
  const gpus = gpusOf([node]);
  const total = gpuCount(gpus);
  if (total === 0) return <span className="text-faint">–</span>;
  return (
    <span className="inline-flex items-center gap-2" title={gpuSentence(gpus)}>
      {total <= MOST && (
        <span aria-hidden className="inline-grid grid-flow-col grid-rows-1 gap-0.5">
          {LOOKS.flatMap(([kind, look]) => Array.from({ length: gpus[kind] }, (_, i) => <span key={`${kind} ${i}`} className={cn("size-2.5 rounded-xs", look)} />))}
        </span>
      )}
      <span className="text-sm whitespace-nowrap text-muted" aria-label={gpuSentence(gpus)}>
        {gpus.used} of {total}
      </span>
    </span>
  );
}

/** All GPUs of some nodes as one bar, with a legend. */
export function GpuBar({ nodes }: { nodes: readonly NodeOut[] }) {
  const gpus = gpusOf(nodes);
  const total = gpuCount(gpus);
  if (total === 0) return null;
  const words: Record<keyof Gpus, string> = { used: "used", free: "free", held: "on nodes that take nothing new", sick: "not offered" };
  return (
    <div className="flex min-w-64 flex-1 flex-col gap-1.5">
      <div role="img" aria-label={`${total} GPUs: ${gpuSentence(gpus)}`} className="flex h-2 gap-px overflow-hidden rounded-full bg-line">
        {LOOKS.map(([kind, look]) => gpus[kind] > 0 && <span key={kind} className={cn("h-full", kind !== "free" && look)} style={{ width: `${(gpus[kind] / total) * 100}%` }} />)}
      </div>
      <ul className="flex flex-wrap gap-x-4 text-sm text-muted">
        {LOOKS.filter(([kind]) => gpus[kind] > 0).map(([kind, look]) => (
          <li key={kind} className="inline-flex items-center gap-1.5">
            <span aria-hidden className={cn("size-2.5 rounded-xs", look)} />
            <span className="text-text">{gpus[kind]}</span> {words[kind]}
          </li>
        ))}
      </ul>
    </div>
  );
}
