import { type PointerEvent, useMemo, useState } from "react";

import { figure } from "@/lib/format";

import { type Span, spanAt, ticksOf, type Timeline } from "./layout-shape";

const ROW = 16;
const WIDTH = 1200;
export const OPERATIONS = [
  ["F", "forward", "var(--curve-1)"],
  ["I", "gradient of the input", "var(--curve-2)"],
  ["W", "gradient of the weights", "var(--curve-3)"],
] as const;

type Props = {
  timeline: Timeline;
  chunks: number;
  /** "Planned schedule", "Measured schedule of step 10". */
  title: string;
  /** Where the axis ends, in seconds, so that two pictures can be compared; absent: where the schedule does. */
  until?: number;
};

/** A schedule, a row a pipeline rank: what computes when. Later chunks of a rank are paler; gaps are the bubble. */
export function Gantt({ timeline, chunks, title, until = timeline.seconds }: Props) {
  const [pointed, setPointed] = useState<{ rank: number; span: Span | null } | null>(null);
  const paths = useMemo(() => pathsOf(timeline, chunks, until), [timeline, chunks, until]);
  const ranks = timeline.ranks.length;
  const height = ranks * ROW;
  const point = (event: PointerEvent<SVGSVGElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    const rank = Math.min(ranks - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * ranks)));
    setPointed({ rank, span: spanAt(timeline, rank, ((event.clientX - box.left) / box.width) * until) });
  };
  const microbatches = timeline.microbatches < timeline.of ? `the first ${timeline.microbatches} of ${timeline.of} micro-batches` : `${timeline.of} micro-batches`;
  return (
    <figure className="flex flex-col gap-2">
      <figcaption className="flex flex-wrap items-center gap-x-4 gap-y-1 text-sm">
        <span className="text-base font-medium">{title}</span>
        {OPERATIONS.map(([op, name, colour]) => (
          <span key={op} className="flex items-center gap-1.5">
            <span className="size-2.5 rounded-sm" style={{ background: colour }} />
            {name}
          </span>
        ))}
        {chunks > 1 && <span className="text-muted">paler: later chunks</span>}
        <span className="min-w-64 flex-1 text-right text-muted tabular-nums max-sm:text-left">{pointed ? saidOf(pointed.rank, pointed.span, chunks, ranks) : `${microbatches}, ${figure(timeline.seconds)} s`}</span>
      </figcaption>
      <div className="flex gap-2">
        <div aria-hidden className="flex w-12 shrink-0 flex-col text-right text-xs text-muted">
          {timeline.ranks.map((_, rank) => (
            <span key={rank} className="leading-4" style={{ height: ROW }}>
              {rank === 0 ? "rank 0" : rank}
            </span>
          ))}
        </div>
        <div className="min-w-0 flex-1">
          <svg
            role="img"
            aria-label={`${title}: ${ranks} pipeline ranks over ${timeline.microbatches} micro-batches, ${figure(timeline.seconds)} seconds`}
            viewBox={`0 0 ${WIDTH} ${height}`}
            preserveAspectRatio="none"
            className="w-full rounded-sm bg-sunken"
            style={{ height }}
            onPointerMove={point}
            onPointerLeave={() => setPointed(null)}
          >
            {paths.map(({ key, colour, opacity, path }) => (
              <path key={key} d={path} fill={colour} opacity={opacity} />
            ))}
          </svg>
          <Axis until={until} />
        </div>
      </div>
    </figure>
  );
}

/** Seconds, below the picture. */
function Axis({ until }: { until: number }) {
  const ticks = ticksOf(until);
  return (
    <div aria-hidden className="relative mt-0.5 h-4 text-xs text-muted">
      {ticks.map((seconds) => (
        <span key={seconds} className="absolute -translate-x-1/2 whitespace-nowrap first:translate-x-0 max-sm:even:hidden" style={{ left: `${(100 * seconds) / until}%` }}>
          {figure(seconds)}
          {seconds === 0 ? "" : " s"}
        </span>
      ))}
    </div>
  );
}

function saidOf(rank: number, span: Span | null, chunks: number, ranks: number): string {
  if (!span) return `rank ${rank} waits`;
  const [op, stage, microbatch, start, end] = span;
  const name = OPERATIONS.find(([id]) => id === op)?.[1] ?? op;
  const chunk = chunks > 1 ? `, chunk ${Math.floor(stage / ranks)}` : "";
  return `rank ${rank}${chunk}: ${name}, micro-batch ${microbatch}, ${figure(1000 * (end - start))} ms from ${figure(start)} s`;
}

/** One path for each operation and chunk: thousands of boxes, a dozen elements. */
function pathsOf(timeline: Timeline, chunks: number, until: number) {
  const drawn = new Map<string, { colour: string; opacity: number; parts: string[] }>();
  const scale = WIDTH / (until || 1);
  timeline.ranks.forEach((spans, rank) => {
    for (const [op, stage, , start, end] of spans) {
      const chunk = Math.floor(stage / timeline.ranks.length);
      const key = `${op}${chunk}`;
      const found = drawn.get(key) ?? { colour: OPERATIONS.find(([id]) => id === op)?.[2] ?? "var(--faint)", opacity: 1 - (0.6 * chunk) / Math.max(1, chunks), parts: [] };
      // A hair of space between neighbours, so that they can be counted.
      const width = Math.max(0.2, (end - start) * scale - 0.4);
      found.parts.push(`M${(start * scale).toFixed(2)} ${rank * ROW + 1}h${width.toFixed(2)}v${ROW - 2}h${(-width).toFixed(2)}z`);
      drawn.set(key, found);
    }
  });
  return [...drawn].map(([key, { colour, opacity, parts }]) => ({ key, colour, opacity, path: parts.join("") }));
}
