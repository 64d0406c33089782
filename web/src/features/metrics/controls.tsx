import type { XAxis } from "@/app/search";
import { Button } from "@/components/ui/button";
import { Segments, Toggle } from "@/components/ui/field";

import type { CurveView } from "./view";

/** Settings of all curves on the page. */
export function CurveControls({ view }: { view: CurveView }) {
  return (
    <div className="flex flex-wrap items-center gap-2">
      <Segments<XAxis>
        label="Horizontal axis"
        value={view.x}
        onChange={(x) => view.set({ x: x === "step" ? undefined : x, zoom: undefined })}
        options={[["step", "Step"], ["tokens", "Tokens"], ["time", "Time"]]}
      />
      <Smoothing value={view.smooth} onChange={(smooth) => view.set({ smooth: smooth || undefined })} />
      <Toggle label="Log scale of the vertical axes" pressed={view.log} onChange={(log) => view.set({ log: log || undefined })}>
        Log
      </Toggle>
      <Toggle label="Ignore outliers: the highest and lowest 2 % may leave the picture" pressed={view.robust} onChange={(robust) => view.set({ robust: robust || undefined })}>
        Ignore outliers
      </Toggle>
      {view.range && (
        <Button onClick={() => view.setRange(null)}>
          {view.formatX(view.range[0])} to {view.formatX(view.range[1])} <span className="text-muted">×</span>
          <span className="sr-only">Show everything</span>
        </Button>
      )}
    </div>
  );
}

export function Smoothing({ value, onChange, label = "Smoothing" }: { value: number; onChange: (value: number) => void; label?: string }) {
  return (
    <label className="flex h-7 items-center gap-2 text-sm text-muted">
      {label}
      <input
        type="range"
        min={0}
        max={0.99}
        step={0.01}
        value={value}
        aria-label={label}
        aria-valuetext={value === 0 ? "none" : String(value)}
        onChange={(event) => onChange(Number(event.target.value))}
        className="slider w-24"
      />
      <output className="w-8 text-text">{value === 0 ? "off" : value.toFixed(2)}</output>
    </label>
  );
}
