import { countsOf, type Json, numberOf, recordOf, textOf } from "@/lib/unknown";

/** What roles cost: from calls.json of an artifact, or from a stage's metrics while it runs. Pure. */

export type RoleCost = {
  readonly name: string;
  readonly teacher: string;
  readonly generators: readonly string[];
  readonly calls: number;
  readonly promptTokens: number;
  readonly answerTokens: number;
  readonly seconds: number;
  readonly cacheHits: number;
  readonly retries: number;
  readonly retryReasons: string;
  readonly rejected: number;
  readonly rejectedReasons: string;
};

export function costsOf(calls: Json): RoleCost[] {
  return Object.entries(recordOf(calls.roles)).map(([name, raw]): RoleCost => {
    const role = recordOf(raw);
    const amount = (key: string) => numberOf(role[key]) ?? 0;
    return {
      name, teacher: textOf(role.teacher), generators: countsOf(role.generators).map(([generator]) => generator),
      calls: amount("calls"), promptTokens: amount("prompt_tokens"), answerTokens: amount("completion_tokens"), seconds: amount("seconds"), cacheHits: amount("cache_hits"),
      retries: sum(role.retries), retryReasons: said(role.retries), rejected: sum(role.rejected), rejectedReasons: said(role.rejected),
    };
  });
}

type Metric = { readonly key: string; readonly last_value: number | null };

/** Of metrics named `chat/<role>/<what>`. */
export function liveCostsOf(metrics: readonly Metric[]): RoleCost[] {
  const roles = new Map<string, Map<string, number>>();
  for (const { key, last_value } of metrics) {
    const [, role, what] = /^chat\/([^/]+)\/([^/]+)$/.exec(key) ?? [];
    if (!role || !what) continue;
    const found = roles.get(role) ?? new Map<string, number>();
    roles.set(role, found.set(what, last_value ?? 0));
  }
  return [...roles].map(([name, found]) => {
    const amount = (key: string) => found.get(key) ?? 0;
    return {
      name, teacher: "", generators: [], calls: amount("calls"), promptTokens: amount("prompt_tokens"), answerTokens: amount("completion_tokens"), seconds: amount("seconds"),
      cacheHits: amount("cache_hits"), retries: amount("retries"), retryReasons: "", rejected: amount("rejected"), rejectedReasons: "",
    };
  });
}

const sum = (raw: unknown): number => countsOf(raw).reduce((all, [, count]) => all + count, 0);
const said = (raw: unknown): string => countsOf(raw).map(([reason, count]) => `${reason} ${count}`).join(", ");
