import { useId, useMemo } from "react";

import { cn } from "@/lib/cn";
import { figure } from "@/lib/format";
import type { Json } from "@/lib/unknown";

import { type Aligned, type Fault, marksOf, readRewrite } from "./rewrite-shape";
import { type Mark, pieces } from "./spans";

/** Source and rewrite side by side, part beside part; what the verifier found wrong is marked in both and listed first. */
export function RewriteView({ row }: { row: Json }) {
  const id = useId();
  const { chunks, faults, scores } = useMemo(() => readRewrite(row), [row]);
  const [sourceMarks, textMarks] = useMemo(() => [marksOf(faults, "source"), marksOf(faults, "text")], [faults]);
  return (
    <div className="flex flex-col gap-4 px-4 py-3">
      {faults.length > 0 && <Faults faults={faults} id={id} />}
      {scores.length > 0 && (
        <dl className="flex flex-wrap gap-x-5 gap-y-1 text-sm" aria-label="Scores">
          {scores.map(([name, value]) => (
            <div key={name} className="flex gap-1.5">
              <dt className="text-muted">{name.replaceAll("_", " ")}</dt>
              <dd>{figure(value)}</dd>
            </div>
          ))}
        </dl>
      )}
      <div role="table" aria-label="Source and rewrite" className="grid grid-cols-2 gap-x-5 max-md:grid-cols-1">
        <div role="row" className="contents">
          <span role="columnheader" className="border-b border-line pb-1 text-sm font-medium text-muted">Source</span>
          <span role="columnheader" className="border-b border-line pb-1 text-sm font-medium text-muted max-md:hidden">Rewrite</span>
        </div>
        {chunks.map((chunk, i) => (
          <Chunk key={i} chunk={chunk} sourceMarks={sourceMarks} textMarks={textMarks} faults={faults} id={id} />
        ))}
      </div>
    </div>
  );
}

function Chunk({ chunk, sourceMarks, textMarks, faults, id }: { chunk: Aligned; sourceMarks: readonly Mark[]; textMarks: readonly Mark[]; faults: readonly Fault[]; id: string }) {
  const cell = "min-w-0 border-b border-line py-2.5 break-words whitespace-pre-wrap";
  return (
    <div role="row" className="contents">
      <div role="cell" className={cn(cell, "text-muted max-md:border-0 max-md:pb-1")}>
        <Marked text={chunk.source} start={chunk.sourceStart} marks={sourceMarks} faults={faults} id={id} />
      </div>
      <div role="cell" className={cell}>
        {chunk.text === "" ? <span className="text-faint">not rewritten</span> : <Marked text={chunk.text} start={chunk.textStart} marks={textMarks} faults={faults} id={id} />}
        {chunk.tries !== null && chunk.tries > 1 && <p className="mt-1 text-sm text-warn">{chunk.tries} tries</p>}
      </div>
    </div>
  );
}

function Marked({ text, start, marks, faults, id }: { text: string; start: number; marks: readonly Mark[]; faults: readonly Fault[]; id: string }) {
  return pieces(text, marks, start).map((piece, i) =>
    piece.marks.length === 0 ? (
      piece.text
    ) : (
      <mark key={i} className="rounded-xs bg-bad-soft text-text underline decoration-bad decoration-2 underline-offset-2" title={piece.marks.map((n) => `${faults[n - 1]?.kind}: ${faults[n - 1]?.detail}`).join("\n")}>
        {piece.text}
        {piece.marks.map((n) => (
          <a key={n} href={`#${id}${n}`} className="ml-0.5 align-super text-xs text-bad no-underline" aria-label={`Fault ${n}`}>
            {n}
          </a>
        ))}
      </mark>
    ),
  );
}

function Faults({ faults, id }: { faults: readonly Fault[]; id: string }) {
  return (
    <section aria-label="Faults" className="rounded-lg border border-bad/30 bg-bad-soft px-3 py-2">
      <h3 className="font-medium text-bad">
        {faults.length} {faults.length === 1 ? "fault" : "faults"}
      </h3>
      <ol className="mt-1 flex flex-col gap-0.5">
        {faults.map((fault) => (
          <li key={fault.id} id={`${id}${fault.id}`} className="flex gap-2 target:outline-2 target:outline-accent">
            <span className="w-4 shrink-0 text-right text-sm text-bad">{fault.id}</span>
            <span className="w-24 shrink-0 font-medium">{fault.kind}</span>
            <span className="min-w-0 flex-1 break-words">{fault.detail}</span>
            <span className="shrink-0 text-sm text-muted">{fault.layer}</span>
          </li>
        ))}
      </ol>
    </section>
  );
}
