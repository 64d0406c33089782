import type { PoolOut } from "@/api";
import { figure, memory } from "@/lib/format";

/** What a pool may use and uses of one resource. Pure. */
export type Quota = {
  readonly resource: "gpus" | "cpus" | "memory";
  readonly title: string;
  readonly used: number;
  /** Part of `used` that belongs to other pools of the cohort. */
  readonly borrowed: number;
  readonly quota: number;
  /** Quota and what may be borrowed; null where the cohort sets the only limit. */
  readonly most: number | null;
  readonly format: (amount: number) => string;
};

const RESOURCES = [
  { resource: "gpus", title: "GPUs", name: "nvidia.com/gpu", format: figure },
  { resource: "cpus", title: "CPUs", name: "cpu", format: figure },
  { resource: "memory", title: "Memory", name: "memory", format: memory },
] as const;

/** GPUs, CPUs and memory, those of which it has or uses any; nothing for a pool in which nobody queues. */
export function quotasOf({ spec, status }: { spec: PoolOut["spec"]; status: Pick<PoolOut["status"], "used" | "borrowed" | "capacity"> }): Quota[] {
  // A machine divides its processors; what its stages use of the memory nobody counts.
  const own: Partial<NonNullable<PoolOut["spec"]["quota"]>> | null = spec.quota ?? (status.capacity && { cpus: status.capacity.cpus });
  if (!own) return [];
  return RESOURCES.map(({ resource, title, name, format }): Quota => {
    const quota = own[resource] ?? 0;
    const borrow = spec.borrow ? (spec.borrow[resource] ?? 0) : null;
    const most = spec.cohort ? (borrow === null ? null : quota + borrow) : quota;
    return { resource, title, used: status.used[name] ?? 0, borrowed: status.borrowed[name] ?? 0, quota, most, format };
  }).filter((one) => one.quota > 0 || one.used > 0 || (one.most ?? 0) > 0);
}

export type Shares = { readonly own: number; readonly borrowed: number; readonly quota: number };

/** Parts of the bar's width: used of its own, borrowed, and where its quota ends. The bar is as long as what it may use at most, or uses. */
export function sharesOf({ used, borrowed, quota, most }: Quota): Shares {
  const length = Math.max(quota, most ?? 0, used);
  return length > 0 ? { own: Math.max(0, used - borrowed) / length, borrowed: borrowed / length, quota: quota / length } : { own: 0, borrowed: 0, quota: 0 };
}

/** "24 of 32 used, 8 of them borrowed, 40 at most". */
export function quotaSentence({ used, borrowed, quota, most, format }: Quota): string {
  const limit = most === null ? "the cohort's rest may be borrowed" : most > quota ? `${format(most)} at most` : "";
  return [`${format(used)} of ${format(quota)} used`, borrowed > 0 ? `${format(borrowed)} of them borrowed` : "", limit].filter(Boolean).join(", ");
}
