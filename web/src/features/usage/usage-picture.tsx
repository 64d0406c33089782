import { useMemo, useState } from "react";

import type { UsageOut } from "@/api";
import { Stack } from "@/components/charts/stack";
import { percent } from "@/lib/format";

import { CAUSES, dayName, goodputOf, hours, layersOf, UNIT_NAMES, unitOf } from "./usage";

const CHART_PIXELS = 240;

/** Held hours by day, stacked by cause; the legend has the numbers of the day under the pointer, else of all days. */
export function UsagePicture({ usage }: { usage: UsageOut }) {
  const [cursor, setCursor] = useState<number | null>(null);
  const unit = unitOf(usage);
  const { days, layers } = useMemo(() => layersOf(usage, unit), [usage, unit]);
  const names = useMemo(() => days.map(dayName), [days]);
  const day = cursor === null ? undefined : days[cursor];
  const row = day === undefined ? usage.total : usage.items.find((one) => one.key === day);
  const goodput = row ? goodputOf(row, unit) : null;
  return (
    <section aria-label={`${UNIT_NAMES[unit]} by day`} className="mx-4 mb-4 rounded-lg border border-line bg-surface">
      <header className="flex flex-wrap items-baseline gap-x-4 px-3 pt-2">
        <h2 className="font-medium">{UNIT_NAMES[unit]} held</h2>
        <p className="text-muted">
          <span className="text-text">{hours(row?.held[unit] ?? 0)}</span>
          {goodput !== null && <>, {percent(goodput)} of it work</>}
          {row !== undefined && row.queue[unit] > 0 && <>; {hours(row.queue[unit])} more were waited for</>}
        </p>
        <div className="flex-1" />
        <p className="text-sm text-muted">{day ? dayName(day) : `${dayName(usage.from_day)} to ${dayName(usage.to_day)}`}</p>
      </header>
      <div className="px-1 pb-1.5">
        <Stack layers={layers} names={names} height={CHART_PIXELS} onCursor={setCursor} label={`${UNIT_NAMES[unit]} held by day and cause; the table after it has the numbers.`} />
        <ul className="flex flex-wrap gap-x-4 gap-y-0.5 px-2 pt-0.5 text-sm">
          {CAUSES.filter(({ id }) => layers.some((layer) => layer.id === id)).map(({ id, title, color, about }) => (
            <li key={id} className="flex items-center gap-1.5" title={about}>
              <span aria-hidden className="size-2.5 rounded-xs" style={{ background: color }} />
              <span className="text-muted">{title}</span>
              <span>{hours(row?.causes[id][unit] ?? 0)}</span>
            </li>
          ))}
        </ul>
      </div>
    </section>
  );
}
