import { type Line, valueAt } from "@/components/charts/model";

const MOST = 12;

/** Names and values below a chart: at the cursor, else the newest. Of many lines, first, last and the highest between them. */
export function Legend({ lines, cursor, says }: { lines: readonly Line[]; cursor: number | null; says: (value: number | null) => string }) {
  const valued = lines.map((line) => ({ line, value: cursor === null ? (line.y.findLast((v) => v !== null) ?? null) : valueAt(line, cursor) }));
  const shown = valued.length <= MOST ? valued : mostTelling(valued);
  return (
    <ul className="flex flex-wrap gap-x-3 gap-y-0.5 px-2 pt-0.5 text-sm">
      {shown.map(({ line, value }) => (
        <li key={line.id} className="flex items-center gap-1.5">
          <svg width="14" height="6" aria-hidden>
            <line x1="0" y1="3" x2="14" y2="3" stroke={line.color} strokeWidth="2" strokeDasharray={line.dash.join(" ") || undefined} />
          </svg>
          <span className="max-w-44 truncate text-muted">{line.label}</span>
          <span>{says(value)}</span>
        </li>
      ))}
      {shown.length < valued.length && <li className="text-faint">and {valued.length - shown.length} more</li>}
    </ul>
  );
}

type Valued = { readonly line: Line; readonly value: number | null };

function mostTelling(valued: readonly Valued[]): Valued[] {
  const highest = [...valued].sort((a, b) => (b.value ?? -Infinity) - (a.value ?? -Infinity)).slice(0, MOST - 2);
  return valued.filter((item, i) => i === 0 || i === valued.length - 1 || highest.includes(item)).slice(0, MOST);
}
