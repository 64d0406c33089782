import { Filter, ThumbsDown, ThumbsUp, Undo2 } from "lucide-react";
import { useEffect, useRef } from "react";

import type { ArtifactOut, RowOut, Verdict } from "@/api";
import { Button } from "@/components/ui/button";
import { Kbd } from "@/components/ui/code";
import { CopyButton } from "@/components/ui/copy";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { AnswerView } from "@/features/evaluations/answer-view";
import { AttackView } from "@/features/redteam/attack-view";
import { textOf } from "@/lib/unknown";

import { ConversationView, TrajectoryView } from "./conversation-view";
import { JsonView } from "./json-view";
import { nounOf, valueAt } from "./listing";
import { FateMark, ReviewMark, StandinTag } from "./marks";
import { useRow } from "./queries";
import { RewriteView } from "./rewrite-view";
import { RolloutView } from "./rollout-view";
import { TextView } from "./text-view";
import { ToolView } from "./tool-view";

type Props = {
  artifact: ArtifactOut;
  noun: string;
  position: string | undefined;
  onWhere: (condition: string) => void;
  /** Where people decide about these rows. */
  onReview: ((verdict: Verdict) => void) | undefined;
  onUndo: () => void;
};

/** One row, whole. */
export function Detail({ artifact, noun, position, onWhere, onReview, onUndo }: Props) {
  const row = useRow(artifact.id, noun, position);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    box.current?.scrollTo(0, 0);
  }, [row.data?.position]);
  if (position === undefined) return <Empty title="Looking for rows that match" />;
  if (row.error && !row.data) return <div className="p-4"><ProblemNotice error={row.error} /></div>;
  if (row.data === undefined) return <SkeletonLines count={8} className="p-4" />;
  if (row.data === null) return <Empty title="There is no row here">The address may be of another artifact.</Empty>;
  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a box that scrolls must be reachable by keyboard
    <div ref={box} tabIndex={0} role="region" aria-label="Row" className="min-h-0 min-w-0 overflow-auto -outline-offset-2">
      <Head item={row.data} noun={noun} onWhere={onWhere} onReview={onReview} onUndo={onUndo} />
      <Body noun={noun} row={row.data.row} artifact={artifact} />
    </div>
  );
}

function Head({ item, noun, onWhere, onReview, onUndo }: { item: RowOut; noun: string } & Pick<Props, "onWhere" | "onReview" | "onUndo">) {
  const { row } = item;
  const id = textOf(row.id);
  const properties = nounOf(noun).properties.flatMap((path): [string, string][] => {
    const value = valueAt(row, path);
    return value === null ? [] : [[path, value]];
  });
  return (
    <header className="sticky top-0 z-10 flex flex-col gap-1.5 border-b border-line bg-bg px-4 py-2">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1.5">
        {textOf(row.fate) && <FateMark fate={textOf(row.fate)} className="font-medium" />}
        <ReviewMark review={item.review} />
        {row.is_llm === false && textOf(row.generator).startsWith("standin") && <StandinTag />}
        {id && (
          <span className="inline-flex min-w-0 items-center gap-1 font-mono text-sm text-muted">
            <span className="max-w-72 truncate">{id}</span>
            <CopyButton text={id} label="Copy the row's id" small />
          </span>
        )}
        <div className="flex-1" />
        {onReview && (
          <div role="group" aria-label="Verdict" className="flex gap-1.5">
            <Button onClick={() => onReview("accept")} aria-pressed={item.review?.verdict === "accept"}>
              <ThumbsUp className="text-ok" /> {nounOf(noun).verdicts?.[0] ?? "Accept"} <Kbd>a</Kbd>
            </Button>
            <Button onClick={() => onReview("reject")} aria-pressed={item.review?.verdict === "reject"}>
              <ThumbsDown className="text-bad" /> {nounOf(noun).verdicts?.[1] ?? "Reject"} <Kbd>r</Kbd>
            </Button>
            <Button look="ghost" onClick={onUndo}>
              <Undo2 /> Undo <Kbd>u</Kbd>
            </Button>
          </div>
        )}
      </div>
      {properties.length > 0 && (
        <ul aria-label="Properties" className="flex flex-wrap gap-1 text-sm">
          {properties.map(([path, value]) => (
            <li key={path} className="min-w-0">
              <button type="button" onClick={() => onWhere(`${path}:${value}`)} title={`Only rows whose ${path} is this`} className="group/prop inline-flex max-w-96 items-center gap-1 rounded-sm border border-line px-1.5 hover:bg-hover [&_svg]:size-3">
                <span className="text-muted">{path.split(".").at(-1)?.replaceAll("_", " ")}</span>
                <span className="truncate">{value}</span>
                <Filter aria-hidden className="shrink-0 text-faint group-hover/prop:text-accent" />
              </button>
            </li>
          ))}
        </ul>
      )}
    </header>
  );
}

function Body({ noun, row, artifact }: { noun: string; row: RowOut["row"]; artifact: ArtifactOut }) {
  if (noun === "rewrites") return <RewriteView row={row} />;
  if (noun === "trajectories") return <TrajectoryView row={row} artifactId={artifact.id} />;
  if (noun === "rollouts") return <RolloutView row={row} />;
  if (noun === "conversations") return <ConversationView row={row} />;
  if (noun === "redteam") return <AttackView row={row} />;
  if (noun === "answers") return <AnswerView row={row} />;
  if (noun === "tools") return <ToolView row={row} />;
  if (typeof row.text === "string" && (noun === "train" || noun === "heldout")) return <TextView text={row.text} />;
  return <JsonView value={row} />;
}
