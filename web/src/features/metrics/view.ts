import { useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo } from "react";

import type { CurveSearch, XAxis } from "@/app/search";
import type { Range } from "@/components/charts/model";
import { span, compact, whole } from "@/lib/format";

/** How curves are shown: for the page, and where a panel differs. All of it is in the address. */
export type CurveView = {
  readonly x: XAxis;
  readonly smooth: number;
  readonly log: boolean;
  readonly robust: boolean;
  readonly range: Range | null;
  readonly formatX: (x: number) => string;
  readonly set: (change: CurveSearch) => void;
  readonly setRange: (range: Range | null) => void;
  readonly of: (panel: string) => PanelView;
  readonly setPanel: (panel: string, change: PanelView) => void;
};
export type PanelView = { readonly log?: boolean | undefined; readonly smooth?: number | undefined; readonly large?: boolean | undefined };

const FORMATS: Record<XAxis, (x: number) => string> = { step: whole, tokens: compact, time: span };

export function useCurveView(): CurveView {
  const search = useSearch({ strict: false }) as CurveSearch;
  const navigate = useNavigate();
  return useMemo(() => {
    const set = (change: CurveSearch) => void navigate({ to: ".", search: (old) => ({ ...old, ...change }) as never, replace: true });
    const panels = readPanels(search.panels);
    const x = search.x ?? "step";
    return {
      x,
      smooth: search.smooth ?? 0,
      log: search.log ?? false,
      robust: search.robust ?? false,
      range: readRange(search.zoom),
      formatX: FORMATS[x],
      set,
      setRange: (range) => set({ zoom: range ? range.map((end) => Number(end.toPrecision(8))).join(",") : undefined }),
      of: (panel) => panels.get(panel) ?? {},
      setPanel: (panel, change) => set({ panels: writePanels(new Map(panels).set(panel, change)) }),
    };
  }, [search.panels, search.x, search.smooth, search.log, search.robust, search.zoom, navigate]);
}

/** "120,480.5" → [120, 480.5]; anything else is no zoom. */
export function readRange(text: string | undefined): Range | null {
  const [from, to, ...rest] = (text ?? "").split(",").map(Number);
  if (from === undefined || to === undefined || rest.length > 0) return null;
  return Number.isFinite(from) && Number.isFinite(to) && from < to ? [from, to] : null;
}

/** "loss:log=1;smooth=0.9 lr:log=0;large=1" */
export function readPanels(text: string | undefined): Map<string, PanelView> {
  const panels = new Map<string, PanelView>();
  for (const part of (text ?? "").split(" ")) {
    const at = part.lastIndexOf(":");
    if (at < 1) continue;
    const facts = new Map(part.slice(at + 1).split(";").map((fact) => fact.split("=") as [string, string]));
    const log = facts.get("log");
    const smooth = Number(facts.get("smooth") ?? Number.NaN);
    panels.set(part.slice(0, at), { log: log === undefined ? undefined : log === "1", smooth: smooth >= 0 && smooth < 1 ? smooth : undefined, large: facts.get("large") === "1" || undefined });
  }
  return panels;
}

export function writePanels(panels: ReadonlyMap<string, PanelView>): string | undefined {
  const parts = [...panels].map(([id, { log, smooth, large }]) => {
    const facts = [log === undefined ? "" : `log=${log ? 1 : 0}`, smooth === undefined ? "" : `smooth=${smooth}`, large ? "large=1" : ""].filter(Boolean);
    return facts.length > 0 ? `${id}:${facts.join(";")}` : "";
  });
  return parts.filter(Boolean).join(" ") || undefined;
}
