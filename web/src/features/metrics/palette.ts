/** Colours and dashes of curves: eight of each, so that neighbours differ twice. */

const COLOURS = 8;
const DASHES: readonly number[][] = [[], [6, 4], [2, 3], [9, 3, 2, 3]];

export type Stroke = { readonly color: string; readonly dash: readonly number[] };

export function strokeOf(index: number): Stroke {
  return { color: `var(--curve-${(index % COLOURS) + 1})`, dash: DASHES[(index + Math.floor(index / COLOURS)) % DASHES.length] ?? [] };
}

const assigned = new Map<string, number>();

/** A stroke for each id that it keeps for as long as the page lives, whatever comes and goes beside it. On another page or day the same id gets the
 * same stroke, unless one that was there first has it.
 */
export function strokesOf(ids: readonly string[]): Map<string, Stroke> {
  const taken = new Set<number>();
  for (const id of ids) {
    const known = assigned.get(id);
    if (known === undefined || taken.has(known)) assigned.delete(id);
    else taken.add(known);
  }
  for (const id of ids) {
    if (assigned.has(id)) continue;
    const first = hash(id) % COLOURS;
    // All colours, each once; then the same colours with other dashes.
    const free = Array.from({ length: ids.length + 1 + COLOURS }, (_, n) => Math.floor(n / COLOURS) * COLOURS + ((first + n) % COLOURS)).find((index) => !taken.has(index));
    assigned.set(id, free ?? first);
    taken.add(free ?? first);
  }
  return new Map(ids.map((id) => [id, strokeOf(assigned.get(id) ?? 0)]));
}

function hash(text: string): number {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ (letter.codePointAt(0) ?? 0), 16777619) >>> 0;
  return value;
}

/** Layers: from the first curve colour to the second, in order of depth. */
export function rampOf(index: number, count: number): Stroke {
  const share = count > 1 ? Math.round((100 * index) / (count - 1)) : 0;
  return { color: `color-mix(in oklch, var(--curve-2) ${share}%, var(--curve-1))`, dash: [] };
}
