import "uplot/dist/uPlot.min.css";

import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { figure } from "@/lib/format";
import { resolveColor, useIsDark } from "@/lib/theme";

import { ceiling, edges, labelled, type Layer } from "./stack-model";

export type StackProps = {
  /** From the lowest to the highest. */
  layers: readonly Layer[];
  /** Of the bars, below the axis. */
  names: readonly string[];
  /** For people who do not see the canvas. */
  label: string;
  /** The bar under the pointer. */
  onCursor: (index: number | null) => void;
  height: number;
};

const FONT = '11px "Geist Variable", sans-serif';
const LABEL_PIXELS = 64;
const BAR_SHARE = 0.72;
const BAR_PIXELS = 40;

/** Stacked bars on a canvas. New values only move its data, so that the cursor stays. */
export function Stack(props: StackProps) {
  const host = useRef<HTMLDivElement>(null);
  const latest = useRef(props);
  const plot = useRef<uPlot | null>(null);
  const isDark = useIsDark();
  const shape = props.layers.map((layer) => `${layer.id} ${layer.color}`).join("\n");
  const { height } = props;

  useEffect(() => {
    latest.current = props;
  });

  useEffect(() => {
    const element = host.current;
    if (!element) return;
    const u = new uPlot(options(latest, element.clientWidth, height), data(latest.current), element);
    plot.current = u;
    const resize = new ResizeObserver(() => u.setSize({ width: element.clientWidth, height }));
    resize.observe(element);
    // A canvas takes the fonts that are there when it is drawn.
    void document.fonts.ready.then(() => plot.current?.redraw(false));
    return () => {
      resize.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [shape, height, isDark]);

  useEffect(() => {
    plot.current?.setData(data(latest.current), true);
  }, [props.layers, props.names]);

  return <div ref={host} role="img" aria-label={props.label} className="series" style={{ height }} />;
}

type Latest = { readonly current: StackProps };

function options(latest: Latest, width: number, height: number): uPlot.Options {
  const axis: uPlot.Axis = {
    font: FONT,
    stroke: resolveColor("var(--faint)"),
    grid: { stroke: resolveColor("var(--line)"), width: 1 },
    ticks: { show: false },
    gap: 6,
  };
  const bars = uPlot.paths.bars?.({ size: [BAR_SHARE, BAR_PIXELS], gap: 0 });
  return {
    width,
    height,
    padding: [8, 24, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false, setScale: false }, points: { show: false } },
    scales: {
      x: { time: false, range: () => [-0.5, Math.max(1, latest.current.names.length) - 0.5] },
      y: { range: () => [0, ceiling(latest.current.layers)] },
    },
    axes: [
      {
        ...axis,
        size: 26,
        grid: { show: false },
        splits: (u) => labelled(latest.current.names.length, u.bbox.width / devicePixelRatio / LABEL_PIXELS),
        values: (_, splits) => splits.map((i) => latest.current.names[i] ?? ""),
      },
      { ...axis, space: 34, size: 50, values: (_, splits) => splits.map((y) => figure(y)) },
    ],
    // The highest first, each drawn over what is behind it; a line of the background's colour parts neighbours of any hue.
    series: [
      {},
      ...latest.current.layers.toReversed().map((layer): uPlot.Series => ({
        fill: resolveColor(layer.color),
        stroke: resolveColor("var(--surface)"),
        width: 1,
        points: { show: false },
        ...(bars ? { paths: bars } : {}),
      })),
    ],
    hooks: { setCursor: [(u) => latest.current.onCursor(u.cursor.idx ?? null)] },
  };
}

function data({ layers, names }: StackProps): uPlot.AlignedData {
  return [names.map((_, i) => i), ...edges(layers).toReversed()];
}
