import type { ReactNode } from "react";

import { cn } from "@/lib/cn";
import { percent, whole } from "@/lib/format";

import { barsOf, type Count } from "./corpus-shape";

const TONES = { ok: "bg-ok", warn: "bg-warn", bad: "bg-bad", accent: "bg-accent" };
type Tone = keyof typeof TONES;

type Props = { title: string; counts: readonly Count[]; unit?: (count: number) => string; tone?: (name: string) => Tone; onChoose?: (name: string) => void; name?: (name: string) => ReactNode };

/** Counts by name as bars; each may be a button that filters. */
export function Bars({ title, counts, unit = whole, tone = () => "accent", onChoose, name = (one) => one }: Props) {
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  return (
    <section aria-label={title} className="min-w-0">
      <h3 className="mb-1.5 flex items-baseline gap-2 font-medium">
        {title} <span className="text-sm font-normal text-muted">{unit(all)}</span>
      </h3>
      <ul className="flex flex-col gap-0.5">
        {barsOf(counts).map((bar) => {
          const line = (
            <>
              <span className="truncate">{name(bar.name)}</span>
              <span className="h-2 w-full self-center rounded-xs bg-line" aria-hidden>
                <span className={cn("block h-full rounded-xs", TONES[tone(bar.name)])} style={{ width: `${Math.max(bar.count > 0 ? 1 : 0, 100 * bar.length)}%` }} />
              </span>
              <span className="text-right">{unit(bar.count)}</span>
              <span className="text-right text-muted">{percent(bar.share)}</span>
            </>
          );
          const grid = "grid w-full grid-cols-[minmax(6rem,11rem)_minmax(3rem,1fr)_5rem_3.5rem] gap-x-2.5 rounded-sm px-1 py-0.5 text-left text-sm";
          return (
            <li key={bar.name}>
              {onChoose ? (
                <button type="button" className={cn(grid, "hover:bg-hover")} title="Show these rows" onClick={() => onChoose(bar.name)}>
                  {line}
                </button>
              ) : (
                <div className={grid}>{line}</div>
              )}
            </li>
          );
        })}
      </ul>
    </section>
  );
}
