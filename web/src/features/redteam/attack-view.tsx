import { Lock } from "lucide-react";

import { Conversation, Facts } from "@/features/datasets/conversation-view";
import { FateMark } from "@/features/datasets/marks";
import { type Json, listOf, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

/** One attack: what it was after, each try with its verdict, and the conversation that decided. */
export function AttackView({ row }: { row: Json }) {
  const attempts = recordsOf(row.attempts);
  const reasons = listOf(row.reasons).map(String);
  const players = Object.entries(recordOf(row.generators)).map(([role, name]) => `${role} ${String(name)}`).join(", ");
  return (
    <div className="flex flex-col gap-4 px-4 py-3">
      {textOf(row.goal).startsWith("[hidden:") && (
        <p className="flex items-center gap-1.5 text-warn [&_svg]:size-3.5">
          <Lock aria-hidden /> What was asked and answered is hidden from you: it is for maintainers and admins.
        </p>
      )}
      <Facts
        facts={[
          ["After", textOf(row.goal)],
          ["Rules saw", textOf(row.rules)],
          ["Judge said", textOf(row.judge)],
          ["Answers", numberOf(row.turns)?.toString() ?? ""],
          ["Played by", players],
        ]}
      />
      {reasons.length > 0 && (
        <section aria-label="Reasons">
          <h3 className="font-medium">Why</h3>
          <ul className="list-disc pl-4 marker:text-faint">
            {reasons.map((reason, i) => (
              <li key={i}>{reason}</li>
            ))}
          </ul>
        </section>
      )}
      <Conversation row={row} />
      {attempts.length > 1 && (
        <section aria-label="Tries" className="flex flex-col gap-1.5">
          <h3 className="font-medium">Tries</h3>
          <ol className="flex flex-col gap-1.5">
            {attempts.map((attempt, i) => (
              <Try key={i} number={i + 1} attempt={attempt} />
            ))}
          </ol>
        </section>
      )}
    </div>
  );
}

function Try({ number, attempt }: { number: number; attempt: Json }) {
  const [fate, note] = [textOf(attempt.fate), textOf(attempt.note)];
  return (
    <li>
      <details className="rounded-md border border-line px-3 py-1.5">
        <summary className="flex cursor-pointer flex-wrap items-center gap-2">
          <span>Try {number}</span>
          {fate ? <FateMark fate={fate} /> : <span className="text-muted">{note || "not asked"}</span>}
          {attempt.taken_back === true && <span className="text-sm text-muted">taken back</span>}
        </summary>
        <Facts facts={[["Asked", textOf(attempt.prompt)], ["Answered", textOf(attempt.answer)], ["Note", note]]} />
      </details>
    </li>
  );
}
