import { isRecord, type Json, listOf, recordOf, recordsOf, textOf, written } from "@/lib/unknown";

/** Messages, calls and worlds of rows of `trajectories` and `conversations`, as far as the page shows them. Pure. */

export type Call = {
  readonly tool: string;
  readonly args: unknown;
  readonly answer: unknown;
  /** Null: the row does not say how it ended. */
  readonly ok: boolean | null;
  readonly fault: string | null;
  readonly isReal: boolean;
  readonly changes: readonly Change[];
};
export type Turn = { readonly role: string; readonly text: string; readonly calls: readonly Call[] };
export type Change = { readonly entity: string; readonly id: string; readonly before: Json | null; readonly after: Json | null };
export type Clause = { readonly id: string; readonly text: string; readonly kind: string; readonly mandatory: boolean; readonly passed: boolean | null; readonly by: string; readonly why: string };

/** Messages with the answers of tools beside their calls; what the row says of calls, in their order, tells how each ended. */
export function turnsOf(row: Json): Turn[] {
  const messages = recordsOf(row.messages);
  const records = recordsOf(row.calls);
  const asked = new Set(messages.flatMap((message) => recordsOf(message.tool_calls).map((call) => textOf(call.id))));
  const answers = new Map(messages.filter((m) => m.role === "tool").map((m) => [textOf(m.tool_call_id), m.content]));
  let at = 0;
  return messages.flatMap((message): Turn[] => {
    if (message.role === "tool" && asked.has(textOf(message.tool_call_id))) return [];
    const calls = recordsOf(message.tool_calls).map((call) => callOf(call, records[at++], answers.get(textOf(call.id))));
    return [{ role: textOf(message.role), text: contentOf(message.content), calls }];
  });
}

function callOf(asked: Json, record: Json | undefined, answer: unknown): Call {
  const { name, arguments: args } = recordOf(asked.function);
  const isRead = Object.keys(recordOf(record?.arguments)).length > 0;
  return {
    tool: textOf(name) || textOf(record?.tool),
    args: isRead ? record?.arguments : parsed(args),
    answer: parsed(record?.answer ?? answer),
    ok: typeof record?.ok === "boolean" ? record.ok : null,
    fault: textOf(record?.fault) || null,
    isReal: record?.is_real === true,
    changes: recordsOf(record?.changes).map(changeOf),
  };
}

/** OpenAI content: a text, or parts of which texts are shown. */
function contentOf(raw: unknown): string {
  if (typeof raw === "string") return raw;
  return listOf(raw).map((part) => (isRecord(part) ? textOf(part.text) || `[${textOf(part.type)}]` : written(part))).join("\n");
}

function parsed(raw: unknown): unknown {
  if (typeof raw !== "string") return raw;
  try {
    const value: unknown = JSON.parse(raw);
    return typeof value === "object" ? value : raw;
  } catch {
    return raw;
  }
}

const changeOf = (raw: Json): Change => ({
  entity: textOf(raw.entity), id: written(raw.id), before: isRecord(raw.before) ? raw.before : null, after: isRecord(raw.after) ? raw.after : null,
});

/** Rows that differ between two states of a world, with the fields that differ. */
export function difference(before: unknown, after: unknown): Change[] {
  const [was, is] = [recordOf(before), recordOf(after)];
  return [...new Set([...Object.keys(was), ...Object.keys(is)])].flatMap((entity) => {
    const key = `${entity}_id`;
    const byId = (rows: unknown) => new Map(recordsOf(rows).map((row, i) => [written(row[key] ?? row.id ?? i), row]));
    const [old, fresh] = [byId(was[entity]), byId(is[entity])];
    return [...new Set([...old.keys(), ...fresh.keys()])].flatMap((id): Change[] => {
      const [a, b] = [old.get(id), fresh.get(id)];
      const names = Object.keys(b ?? a ?? {}).filter((name) => !a || !b || written(a[name]) !== written(b[name]));
      if (names.length === 0) return [];
      const pick = (row: Json | undefined) => (row ? Object.fromEntries(names.map((name) => [name, row[name]])) : null);
      return [{ entity, id, before: pick(a), after: pick(b) }];
    });
  });
}

export const changesOf = (world: Json): Change[] => difference(world.before, world.after);

/** Each clause of the rubric with its verdict; a verdict on no known clause comes last. */
export function clausesOf(row: Json): Clause[] {
  const verdicts = recordsOf(row.verdicts);
  const rubric = recordsOf(recordOf(row.task).rubric);
  const known = new Set(rubric.map((clause) => textOf(clause.id)));
  const strangers = verdicts.filter((v) => !known.has(textOf(v.clause))).map((v): Json => ({ id: v.clause, text: v.clause }));
  return [...rubric, ...strangers].map((clause) => {
    const verdict = verdicts.find((one) => one.clause === clause.id);
    return {
      id: textOf(clause.id), text: textOf(clause.text), kind: textOf(clause.kind), mandatory: clause.mandatory !== false,
      passed: typeof verdict?.passed === "boolean" ? verdict.passed : null, by: textOf(verdict?.by), why: textOf(verdict?.why),
    };
  });
}
