import type { ComponentProps, ReactNode } from "react";

import { cn } from "@/lib/cn";

const BOX = "h-7 rounded-md border border-line-strong bg-surface px-2 text-sm text-text placeholder:text-faint";

export function Input({ className, ...rest }: ComponentProps<"input">) {
  return <input spellCheck={false} autoComplete="off" className={cn(BOX, className)} {...rest} />;
}

export function Select({ className, label, ...rest }: ComponentProps<"select"> & { label: string }) {
  return <select aria-label={label} className={cn(BOX, "pr-1", className)} {...rest} />;
}

export function Field({ label, htmlFor, hint, children }: { label: string; htmlFor: string; hint?: string; children: ReactNode }) {
  return (
    <div className="flex flex-col gap-1">
      <label htmlFor={htmlFor} className="text-sm font-medium">
        {label}
      </label>
      {children}
      {hint && <p className="text-sm text-muted">{hint}</p>}
    </div>
  );
}

/** One of a few, as a row of segments. */
export function Segments<T extends string>(props: { label: string; value: T; options: readonly (readonly [T, ReactNode])[]; onChange: (value: T) => void }) {
  return (
    <div role="radiogroup" aria-label={props.label} className="inline-flex h-7 items-center rounded-md border border-line-strong bg-surface p-0.5">
      {props.options.map(([value, text]) => (
        <button
          key={value}
          type="button"
          role="radio"
          aria-checked={value === props.value}
          onClick={() => props.onChange(value)}
          className={cn("h-full rounded-sm px-2 text-sm", value === props.value ? "bg-selected font-medium text-accent" : "text-muted hover:text-text")}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

export function Toggle({ label, pressed, onChange, children }: { label: string; pressed: boolean; onChange: (pressed: boolean) => void; children: ReactNode }) {
  return (
    <button
      type="button"
      aria-pressed={pressed}
      aria-label={label}
      title={label}
      onClick={() => onChange(!pressed)}
      className={cn(
        "inline-flex h-7 items-center gap-1.5 rounded-md border px-2 text-sm [&_svg]:size-3.5",
        pressed ? "border-transparent bg-selected font-medium text-accent" : "border-line-strong bg-surface text-muted hover:text-text",
      )}
    >
      {children}
    </button>
  );
}
