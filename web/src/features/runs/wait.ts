import type { WaitOut } from "@/api";
import { figure, memory, whole } from "@/lib/format";

/** What a stage waits for, as numbers. Pure. */

type Resource = "gpus" | "cpus" | "memory";

const FORMATS: Record<Resource, (amount: number) => string> = { gpus: whole, cpus: figure, memory };
const TITLES: Record<Resource, string> = { gpus: "GPUs", cpus: "CPUs", memory: "memory" };
const ORDER: readonly Resource[] = ["gpus", "cpus", "memory"];

export type Lack = { readonly resource: Resource; readonly title: string; readonly asked: string; readonly free: string | null; readonly quota: string | null; readonly shares: Shares | null };
/** Parts of the bar's width: what others use, what this asks for, and where the quota ends. */
export type Shares = { readonly used: number; readonly asked: number; readonly quota: number };

/** The resource that holds it: the first of which too little is free, else the first that it asks for. */
export function lackOf({ asked, free, used, quota }: Pick<WaitOut, "asked" | "free" | "used" | "quota">): Lack {
  const wanted = ORDER.filter((resource) => (asked[resource] ?? 0) > 0);
  const resource = wanted.find((one) => free && (free[one] ?? 0) < (asked[one] ?? 0)) ?? wanted[0] ?? "cpus";
  const [amount, inUse, own] = [asked[resource] ?? 0, used?.[resource] ?? 0, quota?.[resource] ?? 0];
  const format = FORMATS[resource];
  const length = Math.max(own, inUse + amount);
  return {
    resource,
    title: TITLES[resource],
    asked: format(amount),
    free: free ? format(Math.max(0, free[resource] ?? 0)) : null,
    quota: quota ? format(own) : null,
    shares: quota && used && length > 0 ? { used: inUse / length, asked: amount / length, quota: own / length } : null,
  };
}

/** What else it asks for: "192 CPUs, 3.13 TiB". */
export function othersSentence({ asked }: Pick<WaitOut, "asked">, but: Resource): string {
  return ORDER.filter((resource) => resource !== but && (asked[resource] ?? 0) > 0)
    .map((resource) => `${FORMATS[resource](asked[resource] ?? 0)}${resource === "memory" ? "" : ` ${TITLES[resource]}`}`)
    .join(", ");
}

const WORDS: Partial<Record<WaitOut["code"], string>> = {
  waits_in_queue: "in the queue", waits_for_quota: "for quota", waits_for_cpus: "for processors", waits_for_topology: "for topology", waits_for_image: "for its image",
  waits_for_taint: "for a taint", waits_for_nodes: "for nodes", waits_for_container: "for its container",
};

/** What stands beside "waits": "for quota". */
export const waitWords = (code: WaitOut["code"]): string => WORDS[code] ?? "";
