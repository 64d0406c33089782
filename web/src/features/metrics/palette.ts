/** Colours and dashes of curves: eight of each, so that neighbours differ twice. */

const COLOURS = 8;
const DASHES: readonly number[][] = [[], [6, 4], [2, 3], [9, 3, 2, 3]];

export type Stroke = { readonly color: string; readonly dash: readonly number[] };

export function strokeOf(index: number): Stroke {
  return { color: `var(--curve-${(index % COLOURS) + 1})`, dash: DASHES[(index + Math.floor(index / COLOURS)) % DASHES.length] ?? [] };
}

/** Layers: from the first curve colour to the second, in order of depth. */
export function rampOf(index: number, count: number): Stroke {
  const share = count > 1 ? Math.round((100 * index) / (count - 1)) : 0;
  return { color: `color-mix(in oklch, var(--curve-2) ${share}%, var(--curve-1))`, dash: [] };
}
