import { HighlightStyle, StreamLanguage, type StreamParser, syntaxHighlighting } from "@codemirror/language";
import { toml } from "@codemirror/legacy-modes/mode/toml";
import { type Diagnostic, lintGutter, setDiagnostics } from "@codemirror/lint";
import { EditorState } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { minimalSetup } from "codemirror";
import { lineNumbers } from "@codemirror/view";
import { useEffect, useRef } from "react";

import type { MistakeOut } from "@/api";

type Props = { text: string; label: string; mistakes?: readonly MistakeOut[]; onChange?: (text: string) => void };

const COLOURS = HighlightStyle.define([
  { tag: tags.comment, color: "var(--faint)", fontStyle: "italic" },
  { tag: tags.string, color: "var(--ok)" },
  { tag: [tags.number, tags.bool], color: "var(--warn)" },
  { tag: tags.atom, color: "var(--accent)" },
  { tag: [tags.propertyName, tags.definition(tags.propertyName)], color: "var(--text)" },
  { tag: tags.bracket, color: "var(--muted)" },
]);

type TomlState = { inString: boolean; lhs: boolean };

/** The mode as it comes reads 4e-3 as two numbers with a name between them. */
const TOML: StreamParser<TomlState> = {
  ...(toml as StreamParser<TomlState>),
  token: (stream, state) => (!state.inString && !state.lhs && stream.match(/^[+-]?\d[\d_]*(\.\d+)?[eE][+-]?\d+/) ? "number" : (toml as StreamParser<TomlState>).token(stream, state)),
};

const LOOK = EditorView.theme({
  "&": { height: "100%", fontSize: "0.75rem", backgroundColor: "var(--surface)", color: "var(--text)" },
  ".cm-scroller": { fontFamily: "var(--font-mono)", lineHeight: "1.25rem" },
  ".cm-gutters": { backgroundColor: "var(--surface)", color: "var(--faint)", border: "none" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "&.cm-focused": { outline: "none" },
  ".cm-selectionBackground, &.cm-focused .cm-selectionBackground": { backgroundColor: "var(--accent-soft) !important" },
  ".cm-tooltip": { backgroundColor: "var(--raised)", border: "none", borderRadius: "0.375rem", boxShadow: "0 0 0 1px var(--line), 0 8px 24px -8px var(--shadow)" },
  ".cm-diagnostic": { padding: "0.25rem 0.5rem" },
});

/** A recipe with the mistakes at their lines; without `onChange` only to read. Loaded when it is needed. */
export default function Editor({ text, label, mistakes, onChange }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView | null>(null);
  const start = useRef({ text, onChange, label });
  useEffect(() => {
    start.current.onChange = onChange;
  });
  useEffect(() => {
    if (!host.current) return;
    const isReadOnly = start.current.onChange === undefined;
    const made = new EditorView({
      parent: host.current,
      state: EditorState.create({
        doc: start.current.text,
        extensions: [
          lineNumbers(),
          minimalSetup,
          StreamLanguage.define(TOML),
          syntaxHighlighting(COLOURS),
          LOOK,
          ...(isReadOnly ? [EditorState.readOnly.of(true)] : [lintGutter()]),
          EditorView.contentAttributes.of({ "aria-label": start.current.label, tabindex: "0" }),
          EditorView.updateListener.of((update) => {
            if (update.docChanged) start.current.onChange?.(update.state.doc.toString());
          }),
        ],
      }),
    });
    view.current = made;
    return () => made.destroy();
  }, []);
  useEffect(() => {
    const shown = view.current;
    if (shown && shown.state.doc.toString() !== text) shown.dispatch({ changes: { from: 0, to: shown.state.doc.length, insert: text } });
  }, [text]);
  useEffect(() => {
    const shown = view.current;
    if (shown) shown.dispatch(setDiagnostics(shown.state, diagnostics(shown.state, mistakes ?? [])));
  }, [mistakes]);
  return <div ref={host} className="h-full min-h-0 overflow-hidden" />;
}

function diagnostics(state: EditorState, mistakes: readonly MistakeOut[]): Diagnostic[] {
  return mistakes.map((mistake) => {
    const line = state.doc.line(Math.min(Math.max(1, mistake.line), state.doc.lines));
    return { from: line.from, to: line.to, severity: "error", message: `${mistake.key}: ${mistake.message}\n${mistake.hint}` };
  });
}
