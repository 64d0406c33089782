import { Maximize2, Minimize2, SlidersHorizontal } from "lucide-react";
import { Popover } from "@base-ui/react/popover";
import { type ReactNode, useState } from "react";

import { type Line, valueAt } from "@/components/charts/model";
import { Series } from "@/components/charts/series";
import type { Boundary, Mark, SharePoint } from "@/components/charts/underlay";
import { IconButton } from "@/components/ui/button";
import { Segments, Toggle } from "@/components/ui/field";
import { ProblemNotice, Stale } from "@/components/ui/notice";
import { Skeleton } from "@/components/ui/progress";
import { Tooltip } from "@/components/ui/tooltip";
import { bytes, figure } from "@/lib/format";

import { Smoothing } from "./controls";
import { Legend } from "./legend";
import type { CurveView } from "./view";

export const PANEL_PIXELS = 268;
/** A unit whose figures carry it themselves: 1.3 GB. */
const BYTES = "bytes";
const CHART_PIXELS = 196;
const LEGEND_PIXELS = 22;
const LARGE_PIXELS = 420;

type Props = {
  id: string;
  title: string;
  about: string;
  unit: string;
  lines: readonly Line[];
  boundaries?: readonly Boundary[];
  marks?: readonly Mark[];
  points?: readonly SharePoint[];
  view: CurveView;
  isPending: boolean;
  error: unknown;
  /** Points stand for this many steps; 1: every step. */
  tier: number;
  footer?: ReactNode;
};

/** One chart with its title, value under the cursor, and settings of its own. */
export function Panel({ id, title, about, unit, lines, boundaries, marks, points, view, isPending, error, tier, footer }: Props) {
  const [cursor, setCursor] = useState<number | null>(null);
  const mine = view.of(id);
  const isLarge = mine.large ?? false;
  const isLog = mine.log ?? view.log;
  const shown = lines.filter((line) => !line.isAbandoned);
  const says = unit === BYTES ? sizeOf : figure;
  const last = shown.length === 1 && shown[0] ? (cursor === null ? (shown[0].y.findLast((value) => value !== null) ?? null) : valueAt(shown[0], cursor)) : null;
  return (
    <section aria-label={title} className={"group/panel flex flex-col rounded-lg border border-line bg-surface"}>
      <header className="flex h-9 items-center gap-2 pr-1 pl-3">
        {about ? (
          <Tooltip says={about}>
            <h3 className="truncate font-medium">{title}</h3>
          </Tooltip>
        ) : (
          <h3 className="truncate font-medium">{title}</h3>
        )}
        {shown.length === 1 && <span className="text-muted">{says(last)}</span>}
        {unit && unit !== BYTES && <span className="text-sm whitespace-nowrap text-faint">{unit}</span>}
        {tier > 1 && (
          <Tooltip says={`Each point covers ${tier} steps: the line is its last value, the band its exact extremes. Zoom in for every step.`}>
            <span className="rounded-sm bg-sunken px-1 text-xs text-muted">1 : {tier}</span>
          </Tooltip>
        )}
        <div className="flex-1" />
        {cursor !== null && <span className="text-sm text-muted">{view.formatX(cursor)}</span>}
        <div className="flex opacity-0 group-focus-within/panel:opacity-100 group-hover/panel:opacity-100">
          <PanelSettings id={id} title={title} view={view} />
          <IconButton label={isLarge ? `Make ${title} small` : `Make ${title} large`} onClick={() => view.setPanel(id, { ...mine, large: !isLarge || undefined })}>
            {isLarge ? <Minimize2 /> : <Maximize2 />}
          </IconButton>
        </div>
      </header>
      <div className="relative px-1 pb-1.5">
        {error && shown.length === 0 ? <ProblemNotice error={error} /> : <Stale error={error} className="px-2 pb-1" />}
        {!error && isPending && <Skeleton className="mx-2 my-2 !h-44" />}
        {!error && !isPending && shown.length === 0 && <p className="flex items-center justify-center text-muted" style={{ height: CHART_PIXELS }}>No points here.</p>}
        {shown.length > 0 && (
          <>
            <Series
              lines={lines}
              label={summary(title, shown)}
              isLog={isLog}
              formatX={view.formatX}
              formatY={says}
              range={view.range}
              onRange={view.setRange}
              isRobust={view.robust}
              onCursor={setCursor}
              syncKey={`curves ${view.x}`}
              height={isLarge ? LARGE_PIXELS : shown.length > 1 ? CHART_PIXELS : CHART_PIXELS + LEGEND_PIXELS}
              {...(boundaries ? { boundaries } : {})}
              {...(marks ? { marks } : {})}
              {...(points ? { points } : {})}
            />
            {shown.length > 1 && <Legend lines={shown} cursor={cursor} says={says} />}
          </>
        )}
      </div>
      {footer}
      <DataTable title={title} lines={shown} says={says} />
    </section>
  );
}

function PanelSettings({ id, title, view }: { id: string; title: string; view: CurveView }) {
  const mine = view.of(id);
  return (
    <Popover.Root>
      <Popover.Trigger render={<IconButton label={`Settings of ${title}`} />}>
        <SlidersHorizontal />
      </Popover.Trigger>
      <Popover.Portal>
        <Popover.Positioner sideOffset={4} align="end" className="z-30">
          <Popover.Popup aria-label={`Settings of ${title}`} className="pop flex flex-col gap-2 rounded-lg bg-raised p-3 shadow-pop outline-none">
            <Segments
              label="Vertical axis"
              value={mine.log === undefined ? "page" : mine.log ? "log" : "linear"}
              onChange={(scale) => view.setPanel(id, { ...mine, log: scale === "page" ? undefined : scale === "log" })}
              options={[["page", "As the page"], ["linear", "Linear"], ["log", "Log"]]}
            />
            <Smoothing value={mine.smooth ?? view.smooth} onChange={(smooth) => view.setPanel(id, { ...mine, smooth })} />
            <Toggle label="Smoothing as on the page" pressed={mine.smooth === undefined} onChange={() => view.setPanel(id, { ...mine, smooth: undefined })}>
              Smooth as the page
            </Toggle>
          </Popover.Popup>
        </Popover.Positioner>
      </Popover.Portal>
    </Popover.Root>
  );
}

function sizeOf(value: number | null): string {
  return value === null ? figure(value) : bytes(value);
}

function extremes(line: Line): [number, number] {
  const finite = (values: readonly (number | null)[]) => values.filter((value): value is number => value !== null);
  return [finite(line.low).reduce((a, b) => Math.min(a, b), Infinity), finite(line.high).reduce((a, b) => Math.max(a, b), -Infinity)];
}

function summary(title: string, lines: readonly Line[]): string {
  return `${title}: ${lines.length === 1 ? "a curve" : `${lines.length} curves`}; the table after it has the numbers.`;
}

/** The chart's twin for those who do not see it. */
function DataTable({ title, lines, says }: { title: string; lines: readonly Line[]; says: (value: number | null) => string }) {
  return (
    <table className="sr-only">
      <caption>{title}</caption>
      <thead>
        <tr>
          <th scope="col">Curve</th>
          <th scope="col">Last</th>
          <th scope="col">Lowest</th>
          <th scope="col">Highest</th>
        </tr>
      </thead>
      <tbody>
        {lines.map((line) => {
          const [low, high] = extremes(line);
          return (
            <tr key={line.id}>
              <th scope="row">{line.label}</th>
              <td>{says(line.y.findLast((value) => value !== null) ?? null)}</td>
              <td>{says(low)}</td>
              <td>{says(high)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}
