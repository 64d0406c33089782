import { useState } from "react";

import { Code } from "@/components/ui/code";
import { Toggle } from "@/components/ui/field";
import { useShortcuts } from "@/lib/keys";
import { type Json, listOf, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

import { Rubric } from "./rubric";
import { changesOf, clausesOf, turnsOf } from "./trajectory-shape";
import { Turns } from "./turns";
import { World } from "./world-view";

/** An agent's conversation with its user and its tools: the task, what was said and called, what became of the world, what the rubric says. */
export function TrajectoryView({ row, artifactId }: { row: Json; artifactId: string }) {
  const task = recordOf(row.task);
  const persona = recordOf(task.persona);
  const world = recordOf(row.world);
  const clauses = clausesOf(row);
  const score = numberOf(row.score);
  return (
    <div className="flex flex-col gap-5 px-4 py-3">
      <section aria-label="Task" className="flex flex-col gap-1">
        <p className="max-w-3xl text-lg">{textOf(task.instruction)}</p>
        <Facts
          facts={[
            ["User", [textOf(persona.name), textOf(persona.style)].filter(Boolean).join(", ")],
            ["Wants", textOf(persona.hidden_goal)],
            ["World", textOf(world.application)],
            ["Ended by", [textOf(row.ended_by), textOf(row.why)].filter(Boolean).join(": ")],
            ["Played by", Object.entries(recordOf(row.generators)).map(([role, name]) => `${role} ${String(name)}`).join(", ")],
          ]}
        />
      </section>
      {clauses.length > 0 && <Rubric clauses={clauses} score={score} reasons={listOf(row.reasons).map(String)} />}
      <Conversation row={row} />
      {textOf(world.application) && <World changes={changesOf(world)} digests={[textOf(world.digest_before), textOf(world.digest_after)]} />}
      <section aria-label="Replay" className="flex max-w-3xl flex-col gap-1.5">
        <h3 className="font-medium">Play it again</h3>
        <p className="text-muted">
          Its seed is {numberOf(row.seed) ?? "not said"}. Calls are made anew on fresh worlds and servers; answers, changes and verdicts must come out the same. The tools are the catalogue of the same stage.
        </p>
        <Code text={`abruzzi artifacts pull ${artifactId} --to ./trajectories\nabruzzi trajectories replay ./trajectories --tools ./tools`} />
      </section>
    </div>
  );
}

/** A conversation that a model may be trained on, with what the filters said of it. */
export function ConversationView({ row }: { row: Json }) {
  const reasons = listOf(row.reasons).map(String);
  return (
    <div className="flex flex-col gap-4 px-4 py-3">
      <Facts
        facts={[
          ["Known answer", textOf(row.expected)],
          ["Compared", row.right === true ? "right" : row.right === false ? "wrong" : ""],
          ["Score", numberOf(row.score)?.toFixed(2) ?? ""],
        ]}
      />
      {reasons.length > 0 && (
        <section aria-label="Reasons">
          <h3 className="font-medium">What the filters said</h3>
          <ul className="list-disc pl-4 marker:text-faint">
            {reasons.map((reason) => (
              <li key={reason}>{reason}</li>
            ))}
          </ul>
        </section>
      )}
      <Conversation row={row} />
    </div>
  );
}

export function Conversation({ row }: { row: Json }) {
  const [isOpen, setIsOpen] = useState(false);
  const turns = turnsOf(row);
  const tools = recordsOf(row.tools);
  const calls = turns.reduce((sum, turn) => sum + turn.calls.length, 0);
  useShortcuts("Conversation", { e: ["Unfold or fold all calls", () => setIsOpen(!isOpen)] });
  return (
    <section aria-label="Conversation" className="flex flex-col gap-2">
      <div className="flex flex-wrap items-center gap-2">
        <h3 className="font-medium">Conversation</h3>
        <span className="text-sm text-muted">
          {turns.length} {turns.length === 1 ? "turn" : "turns"}, {calls} {calls === 1 ? "call" : "calls"}
          {tools.length > 0 && `, ${tools.length} ${tools.length === 1 ? "tool" : "tools"} at hand`}
        </span>
        <div className="flex-1" />
        {calls > 0 && (
          <Toggle label="Unfold calls" pressed={isOpen} onChange={setIsOpen}>
            Unfold calls
          </Toggle>
        )}
      </div>
      <Turns turns={turns} isOpen={isOpen} />
      {tools.length > 0 && (
        <details>
          <summary className="text-muted">The tools at hand</summary>
          <ul className="mt-1 flex flex-col gap-1 text-sm">
            {tools.map((tool) => (
              <li key={textOf(tool.name)}>
                <span className="font-mono">{textOf(tool.name)}</span> <span className="text-muted">{textOf(tool.description)}</span>
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

export function Facts({ facts }: { facts: readonly (readonly [string, string])[] }) {
  return (
    <dl className="grid grid-cols-[max-content_minmax(0,1fr)] gap-x-3 text-sm">
      {facts.filter(([, value]) => value !== "").map(([name, value]) => (
        <div key={name} className="contents">
          <dt className="text-muted">{name}</dt>
          <dd className="break-words">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
