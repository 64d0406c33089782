import { type Json, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

/** What the list of rows shows of each noun. Pure. */

export type Listed = { readonly title: string; readonly about: string; readonly figure: string };
type Noun = {
  readonly title: string;
  /** After a number. */
  readonly many?: string;
  /** Of the row: the list asks for no more. None: for all. */
  readonly fields: readonly string[];
  /** Keys of the detail that can be filtered by with a click. */
  readonly properties: readonly string[];
  readonly listed: (row: Json) => Listed;
  /** What accepting and rejecting means, where it is something else. */
  readonly verdicts?: readonly [string, string];
};

const document: Noun = {
  title: "Documents",
  fields: ["name", "domain", "source", "text"],
  properties: ["source", "domain", "name"],
  listed: (row) => ({ title: textOf(row.name) || firstLine(row.text), about: joined(row.domain, row.source, row.name ? firstLine(row.text) : ""), figure: "" }),
};

const NOUNS: Record<string, Noun> = {
  train: { ...document, title: "Training text", many: "training documents" },
  heldout: { ...document, title: "Held-out text", many: "held-out documents" },
  cloze: {
    title: "Cloze items",
    fields: [],
    properties: ["relation", "source"],
    listed: (row) => ({ title: textOf(row.prompt) || textOf(row.question) || firstText(row), about: joined(row.relation, row.source), figure: "" }),
  },
  rewrites: {
    title: "Rewrites",
    fields: ["fate", "name", "document", "domain", "style", "perspective", "text", "scores", "is_llm", "generator"],
    properties: ["style", "perspective", "domain", "source", "licence", "prompt_version", "document", "generator"],
    listed: (row) => ({ title: firstLine(row.text) || textOf(row.name) || textOf(row.document), about: joined(row.style, row.perspective, row.name), figure: "" }),
  },
  tools: {
    title: "Tools",
    fields: ["name", "description", "source", "licence"],
    properties: ["source", "licence"],
    listed: (row) => ({ title: textOf(row.name), about: joined(row.source, row.description), figure: "" }),
  },
  trajectories: {
    title: "Trajectories",
    fields: ["fate", "task", "score", "turns", "ended_by", "is_llm", "generator"],
    properties: ["task.difficulty", "ended_by", "source", "licence", "generator", "seed"],
    listed: (row) => {
      const task = recordOf(row.task);
      const turns = numberOf(row.turns);
      return { title: firstLine(task.instruction), about: joined(task.difficulty, turns === null ? "" : `${turns} turns`, row.ended_by ? `ended by ${textOf(row.ended_by)}` : ""), figure: score(row) };
    },
  },
  rollouts: {
    title: "Rollouts",
    fields: ["fate", "family", "iteration", "reward", "policy_tokens", "versions", "messages", "group"],
    properties: ["iteration", "group", "family", "environment", "task", "turns", "reward_version"],
    listed: (row) => {
      const asked = recordsOf(row.messages).find((message) => message.role === "user");
      const [tokens, versions] = [numberOf(row.policy_tokens), Array.isArray(row.versions) ? row.versions.length : 0];
      return {
        title: firstLine(asked?.content) || textOf(row.task),
        about: joined(numberOf(row.iteration) === null ? "" : `iteration ${numberOf(row.iteration)}`, row.family, tokens === null ? "" : `${tokens} tokens`, versions > 1 ? `${versions} policies` : ""),
        figure: numberOf(row.reward)?.toFixed(2) ?? "",
      };
    },
  },
  conversations: {
    title: "Conversations",
    fields: ["fate", "domain", "source", "score", "reasons", "messages", "is_llm", "generator"],
    properties: ["domain", "candidate", "source", "licence", "generator", "prompt_id"],
    listed: (row) => {
      const asked = recordsOf(row.messages).find((message) => message.role === "user");
      return { title: firstLine(asked?.content) || textOf(row.prompt_id), about: joined(row.domain, ...(Array.isArray(row.reasons) ? row.reasons : [])), figure: score(row) };
    },
  },
  redteam: {
    title: "Attacks",
    fields: ["fate", "plugin", "sub_plugin", "strategy", "goal", "turns", "is_llm", "generator"],
    properties: ["plugin", "sub_plugin", "strategy", "language", "rules", "judge", "source", "licence", "generator"],
    listed: (row) => ({ title: firstLine(row.goal), about: joined(row.sub_plugin, row.strategy), figure: "" }),
    verdicts: ["Safe", "Unsafe"],
  },
  answers: {
    title: "Answers",
    fields: ["fate", "item", "sample", "subtask", "score", "status", "reason", "truncated", "messages"],
    properties: ["suite", "item", "subtask", "sample", "status", "truncated", "generator"],
    listed: (row) => {
      const asked = recordsOf(row.messages).find((message) => message.role === "user");
      return { title: firstLine(asked?.content) || textOf(row.item), about: joined(row.item, row.truncated === true ? "cut" : "", row.subtask, row.reason), figure: score(row) };
    },
  },
  calls: {
    title: "Calls",
    fields: ["role", "seconds", "response", "rejected", "retries"],
    properties: ["role", "response.model", "response.generator", "rejected.reason"],
    listed: (row) => {
      const [answer, refused] = [recordOf(row.response), recordOf(row.rejected)];
      return { title: firstLine(answer.text) || (refused.reason ? `Rejected: ${textOf(refused.reason)}` : firstText(answer) || textOf(row.id)), about: joined(row.role, answer.generator), figure: numberOf(row.seconds) === null ? "" : `${numberOf(row.seconds)?.toFixed(1)} s` };
    },
  },
};

export function nounOf(noun: string): Noun {
  return NOUNS[noun] ?? {
    title: noun.charAt(0).toUpperCase() + noun.slice(1).replaceAll("_", " "),
    fields: [],
    properties: ["source", "domain", "licence", "generator"],
    listed: (row) => ({ title: firstText(row), about: joined(row.source, row.domain), figure: "" }),
  };
}

export const manyOf = (noun: string): string => nounOf(noun).many ?? nounOf(noun).title.toLowerCase();

/** Nouns in the order in which people look at them; what is not known comes last. */
export function inOrder<T extends { readonly noun: string }>(nouns: readonly T[]): T[] {
  const order = ["redteam", "answers", "rollouts", "rewrites", "trajectories", "conversations", "tools", "train", "heldout", "cloze"];
  const place = (noun: string) => (noun === "calls" ? 99 : order.indexOf(noun) < 0 ? 50 : order.indexOf(noun));
  return [...nouns].sort((a, b) => place(a.noun) - place(b.noun));
}

/** People decide about rows of these: what they say is what `sft` asks for, and of attacks what counts. */
export const isReviewed = (noun: string): boolean => ["conversations", "trajectories", "redteam"].includes(noun);

/** The value at a dotted path, as the API's `where` compares it; null where there is none or more than one. */
export function valueAt(row: Json, path: string): string | null {
  const value = path.split(".").reduce<unknown>((at, key) => recordOf(at)[key], row);
  if (typeof value === "string") return value === "" ? null : value;
  return typeof value === "number" || typeof value === "boolean" ? JSON.stringify(value) : null;
}

const score = (row: Json): string => numberOf(row.score)?.toFixed(2) ?? "";
const joined = (...parts: readonly unknown[]): string => parts.filter((part): part is string => typeof part === "string" && part !== "").join(" · ");
const firstText = (row: Json): string => firstLine(Object.entries(row).find(([key, value]) => key !== "id" && typeof value === "string" && value !== "")?.[1]) || JSON.stringify(row).slice(0, 120);

function firstLine(raw: unknown): string {
  return textOf(raw).split("\n").find((line) => line.trim() !== "")?.trim() ?? "";
}
