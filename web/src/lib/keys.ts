import { useEffect, useRef } from "react";

/** Keyboard: single keys ("j", "?", "/") and two-key sequences ("g r"). Nothing fires while somebody types. */
export type Shortcut = { readonly keys: string; readonly what: string; readonly where: string };

const shown = new Map<string, Shortcut>();
const PRESSED = "a[href],button,summary,[role=button],[role=tab],[role=option]";
const SEQUENCE_MILLISECONDS = 900;

/** What the `?` sheet lists: every shortcut that is mounted now. */
export const mountedShortcuts = (): Shortcut[] => [...shown.values()];

export function useShortcuts(where: string, bindings: Readonly<Record<string, readonly [what: string, run: () => void]>>): void {
  const latest = useRef(bindings);
  useEffect(() => {
    latest.current = bindings;
  });
  const names = Object.entries(bindings).map(([keys, [what]]) => `${keys}\t${what}`).join("\n");
  useEffect(() => {
    const mine = names.split("\n").map((line) => line.split("\t") as [string, string]);
    for (const [keys, what] of mine) shown.set(`${where} ${keys}`, { keys, what, where });
    let first = "";
    let firstAt = 0;
    const onKey = (event: KeyboardEvent) => {
      if (event.metaKey || event.ctrlKey || event.altKey || event.isComposing || isTyping(event.target)) return;
      if (event.defaultPrevented || isPress(event)) return;
      const pair = performance.now() - firstAt < SEQUENCE_MILLISECONDS ? `${first} ${event.key}` : "";
      const hit = latest.current[pair] ?? latest.current[event.key];
      [first, firstAt] = [event.key, performance.now()];
      if (!hit) return;
      event.preventDefault();
      first = "";
      hit[1]();
    };
    addEventListener("keydown", onKey);
    return () => {
      removeEventListener("keydown", onKey);
      for (const [keys] of mine) shown.delete(`${where} ${keys}`);
    };
  }, [where, names]);
}

/** Enter and space on a link, a button or a box belong to it. */
function isPress(event: KeyboardEvent): boolean {
  const takers = event.key === "Enter" ? PRESSED : event.key === " " ? `${PRESSED},input` : null;
  return takers !== null && event.target instanceof Element && event.target.closest(takers) !== null;
}

function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target instanceof HTMLInputElement && /^(checkbox|radio|range)$/.test(target.type)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) || target.closest("[role=dialog],[role=alertdialog],[role=menu]") !== null;
}
