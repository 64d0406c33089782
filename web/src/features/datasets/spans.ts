/** Texts cut where something is marked. Spans count characters as Python does (code points), texts of the browser count UTF-16. Pure. */

export type Span = readonly [from: number, to: number];
export type Mark = { readonly id: number; readonly span: Span };
export type Piece = { readonly text: string; readonly marks: readonly number[] };

/** The text in pieces, each with the ids of the marks that cover it. An empty span marks the character after it, so that it is seen. */
export function pieces(text: string, marks: readonly Mark[], start = 0): Piece[] {
  const points = [...text];
  const here = marks
    .map(({ id, span: [from, to] }) => ({ id, from: Math.max(0, from - start), to: Math.min(points.length, Math.max(to, from + 1) - start) }))
    .filter(({ from, to }) => from < to);
  const edges = [...new Set([0, points.length, ...here.flatMap(({ from, to }) => [from, to])])].sort((a, b) => a - b);
  const found: Piece[] = [];
  for (const [i, from] of edges.entries()) {
    const to = edges[i + 1];
    if (to === undefined || to === from) continue;
    found.push({ text: points.slice(from, to).join(""), marks: here.filter((mark) => mark.from <= from && to <= mark.to).map(({ id }) => id) });
  }
  return found;
}

/** Where each part begins in the whole, in code points; null where the parts are not in it in this order. */
export function starts(whole: string, parts: readonly string[]): number[] | null {
  const found: number[] = [];
  let at = 0;
  let points = 0;
  for (const part of parts) {
    const next = whole.indexOf(part, at);
    if (next < 0) return null;
    points += [...whole.slice(at, next)].length;
    found.push(points);
    points += [...part].length;
    at = next + part.length;
  }
  return found;
}

export function spanOf(raw: unknown): Span | null {
  return Array.isArray(raw) && raw.length === 2 && raw.every((n) => Number.isInteger(n) && n >= 0) ? [raw[0] as number, raw[1] as number] : null;
}
