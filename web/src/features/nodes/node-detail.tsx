import type { ReactNode } from "react";

import type { NodeOut } from "@/api";
import { cn } from "@/lib/cn";
import { ago, figure, memory, since, span } from "@/lib/format";
import { useNow } from "@/lib/now";

/** All that is known of a node: what it is, its conditions and taints, its faults, and who decided what about it. */
export function NodeDetail({ node, levels }: { node: NodeOut; levels: readonly string[] }) {
  const now = useNow();
  return (
    <section aria-label={`Details of ${node.name}`} className="grid grid-cols-[repeat(auto-fit,minmax(20rem,1fr))] gap-x-10 gap-y-4">
      <Part title="Conditions" isEmpty={node.conditions.length === 0} empty="None reported.">
        {node.conditions.map((one) => (
          <li key={one.type}>
            <span className={cn("font-medium", one.is_bad && "text-bad")}>
              {one.type}: {one.status}
            </span>
            {one.since && <span className="text-faint"> for {span(since(one.since, now))}</span>}
            {(one.message || one.reason) && <p className="text-muted">{one.message || one.reason}</p>}
          </li>
        ))}
      </Part>
      <Part title="Faults" isEmpty={node.faults.length === 0} empty="None recorded.">
        {node.faults.map((fault) => (
          <li key={`${fault.at} ${fault.kind}`}>
            <span className="font-medium">{fault.kind.replaceAll("_", " ")}</span> <span className="text-faint">{ago(fault.at, now)}, counted {figure(fault.weight)}</span>
            <p className="text-muted">{fault.sentence}</p>
          </li>
        ))}
      </Part>
      <div className="flex flex-col gap-4">
        <Part title="What it is" isEmpty={false}>
          <li className="text-muted">
            {figure(node.cpus)} CPUs, {memory(node.memory)}
            {node.gpus.total > 0 && `, ${node.gpus.total} GPUs`}
          </li>
          {levels.filter((level) => node.topology[level]).map((level) => (
            <li key={level} className="text-muted">
              {level} <span className="text-text">{node.topology[level]}</span>
            </li>
          ))}
          {node.cordoned && <li className="text-muted">cordoned: the scheduler places nothing there</li>}
          {node.taints.map((taint) => (
            <li key={`${taint.key} ${taint.effect}`} className="font-mono text-sm break-all">
              {taint.key}
              {taint.value && `=${taint.value}`}:{taint.effect} {taint.is_ours && <span className="font-sans text-faint">ours</span>}
            </li>
          ))}
        </Part>
        {(node.drain ?? node.returned) && (
          <Part title="Decided" isEmpty={false}>
            {node.drain && <Word verb="drained" word={node.drain} now={now} />}
            {node.returned && <Word verb="returned" word={node.returned} now={now} />}
          </Part>
        )}
      </div>
    </section>
  );
}

function Word({ verb, word, now }: { verb: string; word: NonNullable<NodeOut["drain"]>; now: number }) {
  return (
    <li>
      {verb} {ago(word.at, now)} by {word.by} <p className="text-muted">{word.reason}</p>
    </li>
  );
}

function Part({ title, isEmpty, empty, children }: { title: string; isEmpty: boolean; empty?: string; children: ReactNode }) {
  return (
    <div>
      <h3 className="mb-1 text-sm font-medium text-muted">{title}</h3>
      {isEmpty ? <p className="text-faint">{empty}</p> : <ul className="flex flex-col gap-1.5">{children}</ul>}
    </div>
  );
}
