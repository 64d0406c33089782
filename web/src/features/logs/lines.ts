/** What programs print, as plain text for a list. Pure. */

// eslint-disable-next-line no-control-regex -- terminal escapes are control characters
const ESCAPES = /\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]/g;

/** A line as a terminal would leave it: colours dropped, and of a line that rewrote itself (tqdm) the last state. */
export function visibleText(raw: string): string {
  const text = raw.includes("\x1b") ? raw.replace(ESCAPES, "") : raw;
  if (!text.includes("\r")) return text;
  const states = text.split("\r").filter((state) => state !== "");
  return states.at(-1) ?? "";
}

export type Piece = { readonly text: string; readonly hit: boolean };

/** The text cut where `query` occurs, without regard to case. */
export function highlight(text: string, query: string): Piece[] {
  if (!query) return [{ text, hit: false }];
  const pieces: Piece[] = [];
  let from = 0;
  // Not by toLowerCase(): that changes the length of some texts.
  for (const found of text.matchAll(new RegExp(query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"), "giu"))) {
    if (found.index > from) pieces.push({ text: text.slice(from, found.index), hit: false });
    pieces.push({ text: found[0], hit: true });
    from = found.index + found[0].length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from), hit: false });
  return pieces;
}

export type Severity = "bad" | "warn" | "plain";

/** For the colour of a line; a guess that never hides anything. */
export function severity(text: string): Severity {
  if (/(error|exception|traceback|fatal|killed)\b|\b(nan|oom)\b/i.test(text)) return "bad";
  return /(warning|retrying)\b|\bwarn\b|\bdeprecat/i.test(text) ? "warn" : "plain";
}
