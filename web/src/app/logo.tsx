import { cn } from "@/lib/cn";

/** The spur, from the side. */
export function Logo({ className }: { className?: string }) {
  return (
    <svg viewBox="0 0 32 32" aria-hidden className={cn("size-5 shrink-0", className)}>
      <rect width="32" height="32" rx="8" className="fill-accent-fill" />
      <path d="M5 25 14.5 8.5l4 7 2.2-3.6L27 25Z" fill="none" className="stroke-white" strokeWidth="2.4" strokeLinejoin="round" />
    </svg>
  );
}
