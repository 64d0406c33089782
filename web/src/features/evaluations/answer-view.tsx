import { Scissors } from "lucide-react";

import { Conversation, Facts } from "@/features/datasets/conversation-view";
import { whole } from "@/lib/format";
import { countsOf, type Json, numberOf, textOf, written } from "@/lib/unknown";

import { hundredths } from "./board-shape";

/** One answer: what was right, what the grader said, what it cost, and the conversation. */
export function AnswerView({ row }: { row: Json }) {
  const [score, prompt, completion, seconds] = [row.score, row.prompt_tokens, row.completion_tokens, row.seconds].map(numberOf);
  const gold = row.gold === null || row.gold === undefined ? "" : written(row.gold);
  return (
    <div className="flex min-w-0 flex-col gap-4 px-4 py-3">
      {row.truncated === true && (
        <p className="flex items-center gap-1.5 text-warn [&_svg]:size-3.5">
          <Scissors aria-hidden /> The answer reached the cap of tokens; it is scored as far as it goes.
        </p>
      )}
      <Facts
        facts={[
          ["Score", score === null || score === undefined ? `none (${textOf(row.status).replaceAll("_", " ")})` : `${hundredths(score)} %`],
          ["Parts", countsOf(row.parts).map(([name, value]) => `${name} ${hundredths(value)} %`).join(", ")],
          ["Grader", textOf(row.reason)],
          ["Right is", gold.length > LONG_CHARACTERS ? `${gold.slice(0, LONG_CHARACTERS)}…` : gold],
          ["Tokens", completion === null || completion === undefined ? "" : `${whole(completion)} said, ${whole(prompt ?? 0)} asked${seconds ? `, ${seconds.toFixed(1)} s` : ""}`],
          ["Answered by", textOf(row.generator)],
        ]}
      />
      <Conversation row={row} />
    </div>
  );
}

/** Of what is right: tests of a program may be pages long. */
const LONG_CHARACTERS = 600;
