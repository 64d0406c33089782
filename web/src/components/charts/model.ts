/** What a chart draws, apart from how: lines with their bands, aligned for uPlot, and the range of the y axis. Pure. */

export type Line = {
  readonly id: string;
  readonly label: string;
  readonly color: string;
  readonly dash: readonly number[];
  /** Ascending. */
  readonly x: readonly number[];
  /** What is drawn as the line: smoothed, or the last value of each bucket. */
  readonly y: readonly (number | null)[];
  /** Exact extrema of what each point covers, always drawn as a band. */
  readonly low: readonly (number | null)[];
  readonly high: readonly (number | null)[];
  /** Behind the line when it is smoothed. */
  readonly raw: readonly (number | null)[] | null;
  /** Where a value was NaN or infinite. */
  readonly broken: readonly number[];
  /** What an attempt did that was given up: drawn faintly, without a place in the legend. */
  readonly isAbandoned: boolean;
};

export type Range = readonly [from: number, to: number];
export type Cell = number | null | undefined;

/** Columns over the union of all x: `undefined` where a line has no point there (drawn through), `null` where it has a gap. */
export function align(lines: readonly Line[]): [x: number[], ...ys: Cell[][]] {
  const xs = [...new Set(lines.flatMap((line) => line.x as number[]))].sort((a, b) => a - b);
  if (lines.length === 1 && lines[0]) return [xs, [...lines[0].y]];
  const place = new Map(xs.map((x, i) => [x, i]));
  const columns = lines.map((line) => {
    const column: Cell[] = new Array<Cell>(xs.length).fill(undefined);
    line.x.forEach((x, i) => {
      column[place.get(x) as number] = line.y[i] ?? null;
    });
    return column;
  });
  return [xs, ...columns];
}

/** Of the values in view this share lies outside when outliers are passed over, on each side. */
const OUTLYING = 0.02;

/** Extent of everything that is drawn inside `x`, spikes included unless `robust`; padded. On a log axis only what is positive counts. */
export function yRange(lines: readonly Line[], x: Range, isLog: boolean, marks: readonly number[] = [], robust = false): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  const all: number[] = [];
  const see = (value: number | null | undefined): void => {
    if (value === null || value === undefined || (isLog && value <= 0)) return;
    if (robust) all.push(value);
    if (value < low) low = value;
    if (value > high) high = value;
  };
  for (const line of lines) {
    for (let i = 0; i < line.x.length; i += 1) {
      const at = line.x[i] as number;
      if (at < x[0] || at > x[1]) continue;
      see(line.low[i]);
      see(line.high[i]);
      see(line.y[i]);
    }
  }
  if (low > high) return isLog ? [0.1, 1] : [0, 1];
  if (robust) {
    all.sort((a, b) => a - b);
    low = all[Math.floor(OUTLYING * (all.length - 1))] ?? low;
    high = all[Math.ceil((1 - OUTLYING) * (all.length - 1))] ?? high;
  }
  for (const mark of marks) if (mark < high + (high - low || Math.abs(high) || 1) * 1.5) see(mark);
  if (isLog) return [low / 1.15, high * 1.15];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

/** First and last x of all lines, broken values included; never empty. */
export function extent(lines: readonly Line[]): Range {
  let [low, high] = [Infinity, -Infinity];
  for (const { x, broken } of lines) {
    low = Math.min(low, x[0] ?? Infinity, broken[0] ?? Infinity);
    high = Math.max(high, x.at(-1) ?? -Infinity, broken.at(-1) ?? -Infinity);
  }
  if (low > high) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

/** Value of a line at x: its last point at or before it; null before the first. */
export function valueAt(line: Line, x: number): number | null {
  let [low, high] = [0, line.x.length - 1];
  if (high < 0 || x < (line.x[0] as number)) return null;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((line.x[middle] as number) <= x) low = middle;
    else high = middle - 1;
  }
  return line.y[low] ?? null;
}
