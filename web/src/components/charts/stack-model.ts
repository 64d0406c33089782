/** What a chart of stacked bars draws, apart from how. Pure. */

export type Layer = {
  readonly id: string;
  readonly label: string;
  readonly color: string;
  /** One value a bar, not negative. */
  readonly values: readonly number[];
};

/** Heights of the layers' upper edges, from the lowest layer to the highest. */
export function cumulated(layers: readonly Layer[]): number[][] {
  let below: readonly number[] = [];
  return layers.map(({ values }) => {
    const edge = values.map((value, i) => value + (below[i] ?? 0));
    below = edge;
    return edge;
  });
}

/** As `cumulated`, without those of layers that add nothing to a bar: they would be a line without a height. */
export const edges = (layers: readonly Layer[]): (number | null)[][] => cumulated(layers).map((tops, depth) => tops.map((top, i) => ((layers[depth]?.values[i] ?? 0) > 0 ? top : null)));

/** Upper end of the axis: of the highest bar, with room. */
export function ceiling(layers: readonly Layer[]): number {
  const top = Math.max(0, ...(cumulated(layers).at(-1) ?? []));
  return top > 0 ? top * 1.06 : 1;
}

/** Positions with a label when at most `most` have room; the last always has one. */
export function labelled(count: number, most: number): number[] {
  const step = Math.max(1, Math.ceil(count / Math.max(1, most)));
  return Array.from({ length: count }, (_, i) => i).filter((i) => (count - 1 - i) % step === 0);
}
