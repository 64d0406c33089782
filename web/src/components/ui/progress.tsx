import { cn } from "@/lib/cn";

/** Share of the work that is done; without a share a bar that says only that something is going on. */
export function Progress({ share, tone = "accent", label }: { share: number | null; tone?: "accent" | "ok" | "bad" | "muted"; label: string }) {
  const tones = { accent: "bg-accent", ok: "bg-ok", bad: "bg-bad", muted: "bg-line-strong" };
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={share === null ? undefined : Math.round(share * 100)}
      className="h-1 w-full overflow-hidden rounded-full bg-line"
    >
      <div
        className={cn("h-full rounded-full transition-[width] duration-500", tones[tone], share === null && "alive w-full opacity-40")}
        style={share === null ? undefined : { width: `${share * 100}%` }}
      />
    </div>
  );
}

export function Skeleton({ className }: { className?: string }) {
  return <div aria-hidden className={cn("skeleton h-3", className)} />;
}

/** Lines of a text that is on its way. */
export function SkeletonLines({ count, className }: { count: number; className?: string }) {
  return (
    <div className={cn("flex flex-col gap-3", className)} role="status" aria-label="Loading">
      {Array.from({ length: count }, (_, i) => (
        <Skeleton key={i} className={["w-11/12", "w-3/4", "w-5/6", "w-2/3"][i % 4]} />
      ))}
    </div>
  );
}
