import type { ComponentProps } from "react";

import { cn } from "@/lib/cn";

type Look = "plain" | "primary" | "danger" | "ghost";

const LOOKS: Record<Look, string> = {
  plain: "border-line-strong bg-surface hover:bg-hover",
  primary: "border-transparent bg-accent-fill text-white hover:opacity-90",
  danger: "border-transparent bg-bad-fill text-white hover:opacity-90",
  ghost: "border-transparent text-muted hover:bg-hover hover:text-text",
};

export const buttonClass = (look: Look = "plain", more = ""): string =>
  cn(
    "inline-flex h-7 shrink-0 items-center justify-center gap-1.5 whitespace-nowrap rounded-md border px-2.5 text-sm font-medium select-none",
    "disabled:pointer-events-none disabled:opacity-45 [&_svg]:size-3.5 [&_svg]:shrink-0",
    LOOKS[look],
    more,
  );

export function Button({ look = "plain", className, ...rest }: ComponentProps<"button"> & { look?: Look }) {
  return <button type="button" className={buttonClass(look, className)} {...rest} />;
}

/** A square button with a picture; its label is for the tooltip and for those who do not see it. */
export function IconButton({ label, className, ...rest }: ComponentProps<"button"> & { label: string }) {
  return <button type="button" aria-label={label} title={label} className={buttonClass("ghost", cn("w-7 px-0", className))} {...rest} />;
}
