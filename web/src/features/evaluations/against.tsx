import { Link } from "@tanstack/react-router";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useState } from "react";

import type { EvaluationOut, ItemPair } from "@/api";
import type { EvaluationSearch } from "@/app/search";
import { Segments, Select } from "@/components/ui/field";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { cn } from "@/lib/cn";
import { whole } from "@/lib/format";
import { useShortcuts } from "@/lib/keys";
import { textOf } from "@/lib/unknown";

import { AnswerView } from "./answer-view";
import { hundredths, targetName } from "./board-shape";
import { differenceText, ofSide, type Side, significanceText } from "./paired-shape";
import { useItem, useOthers, usePaired } from "./queries";

/** Of the items that changed, so many are listed. */
const MOST_LISTED = 500;

type Change = { [K in keyof EvaluationSearch]?: EvaluationSearch[K] | undefined };
type Props = { evaluation: EvaluationOut; view: EvaluationSearch; onView: (change: Change) => void };

/** Two evaluations by one suite: the difference and what it is worth, the items that changed side, and both answers side by side. */
export default function Against({ evaluation, view, onView }: Props) {
  const others = useOthers(evaluation);
  const other = others.data?.find((one) => one.id === view.against);
  if (others.error && !others.data) return <div className="p-4"><ProblemNotice error={others.error} /></div>;
  if (!others.data) return <SkeletonLines count={6} className="p-4" />;
  if (others.data.length === 0) {
    return (
      <Empty title="Nothing to compare with yet" command={`abruzzi eval --suite ${evaluation.suite} --target latest`}>
        Evaluate another checkpoint by {evaluation.suite}: what it gets right that this one does not, and the other way round, appears here.
      </Empty>
    );
  }
  return (
    <div className="flex h-full min-h-0 flex-col">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2">
        <span className="text-muted">Against</span>
        <Select label="Compare with" value={view.against ?? ""} onChange={(event) => onView({ against: event.target.value || undefined, item: undefined })} className="max-w-full sm:max-w-md">
          <option value="">choose an evaluation</option>
          {others.data.map((one) => (
            <option key={one.id} value={one.id}>
              {nameOf(one)}
            </option>
          ))}
        </Select>
        {other && (
          <Link to="/evaluations/$evaluationId" params={{ evaluationId: other.id }} search={{ against: evaluation.id, tab: "against" }} className="text-sm text-accent hover:underline">
            the other way round
          </Link>
        )}
      </div>
      {view.against === undefined && <Empty title="Against which?">Choose another evaluation by {evaluation.suite} above.</Empty>}
      {view.against !== undefined && !other && <Empty title="It is not among the newest evaluations of this suite">Choose another one above.</Empty>}
      {other && <Pair key={other.id} evaluation={evaluation} other={other} view={view} onView={onView} />}
    </div>
  );
}

const nameOf = (one: EvaluationOut): string =>
  `${targetName(one)}${typeof one.target_detail.run_id === "string" ? ` of ${one.target_detail.run_id}` : ""}, ${one.summary.score ? `${hundredths(one.summary.score.value)} %` : "no score"}${one.summary.settings.tools ? ", with tools" : ""}, ${one.created_at.slice(0, 16).replace("T", " ")}`;

function Pair({ evaluation, other, view, onView }: Props & { other: EvaluationOut }) {
  const paired = usePaired(evaluation.id, other.id);
  const [side, setSide] = useState<Side>("all");
  const found = ofSide(paired.data?.changed ?? [], side);
  const changed = found.slice(0, MOST_LISTED);
  const open = view.item ?? changed[0]?.item;
  const index = changed.findIndex((one) => one.item === open);
  const move = (by: number) => {
    const next = changed[Math.max(0, Math.min(changed.length - 1, index + by))];
    if (next) onView({ item: next.item });
  };
  useShortcuts("Changed items", { j: ["Next item", () => move(1)], k: ["Previous item", () => move(-1)] });
  if (paired.error) return <div className="p-4"><ProblemNotice error={paired.error} /></div>;
  if (!paired.data) return <SkeletonLines count={6} className="p-4" />;
  const { better, worse, left_out: leftOut } = paired.data;
  return (
    <>
      <div role="status" aria-label="Difference" className="border-b border-line bg-sunken px-4 py-2">
        <p className="font-medium">{differenceText(paired.data)}.</p>
        <p className="text-muted">
          {significanceText(paired.data)}.{leftOut > 0 && ` ${whole(leftOut)} ${leftOut === 1 ? "item is" : "items are"} left out: a side has no score of ${leftOut === 1 ? "it" : "them"}.`}
        </p>
      </div>
      {paired.data.changed.length === 0 ? (
        <Empty title="No item changed side">Both have the same score on every item that they share.</Empty>
      ) : (
        <div className="grid min-h-0 flex-1 grid-rows-[14rem_1fr] lg:grid-cols-[minmax(14rem,18rem)_minmax(0,1fr)] lg:grid-rows-1">
          <div className="flex min-h-0 flex-col border-r border-line max-lg:border-b">
            <div className="border-b border-line px-4 py-2">
              <Segments label="Items" value={side} onChange={(next) => { setSide(next); onView({ item: undefined }); }} options={[["all", "All"], ["lost", `Lost ${worse}`], ["won", `Won ${better}`]]} />
            </div>
            <ItemList items={changed} chosen={open} onChoose={(item) => onView({ item })} />
            {found.length > changed.length && <p className="border-t border-line px-4 py-1.5 text-sm text-muted">and {whole(found.length - changed.length)} more</p>}
          </div>
          <div className="grid min-h-0 min-w-0 divide-x divide-line md:grid-cols-2">
            <SideAnswers evaluation={evaluation} item={open} title="This one" />
            <SideAnswers evaluation={other} item={open} title="The other" />
          </div>
        </div>
      )}
    </>
  );
}

function ItemList({ items, chosen, onChoose }: { items: readonly ItemPair[]; chosen: string | undefined; onChoose: (item: string) => void }) {
  return (
    <ul aria-label="Items that changed side" className="min-h-0 flex-1 overflow-auto">
      {items.map(({ item, a, b }) => (
        <li key={item}>
          <button
            type="button"
            aria-current={item === chosen ? "true" : undefined}
            onClick={() => onChoose(item)}
            className={cn("flex h-9 w-full items-center gap-2 border-b border-line px-4 text-left -outline-offset-2 hover:bg-hover [&_svg]:size-3.5", item === chosen && "bg-selected")}
          >
            {b > a ? <ArrowUp aria-label="won" className="shrink-0 text-ok" /> : <ArrowDown aria-label="lost" className="shrink-0 text-bad" />}
            <span className="min-w-0 flex-1 truncate font-medium" title={item}>{item}</span>
            <span className="shrink-0 text-sm text-muted">{hundredths(a)} → {hundredths(b)}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

function SideAnswers({ evaluation, item, title }: { evaluation: EvaluationOut; item: string | undefined; title: string }) {
  const answers = useItem(evaluation, item);
  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a box that scrolls must be reachable by keyboard
    <section tabIndex={0} aria-label={title} className="min-h-0 min-w-0 overflow-auto -outline-offset-2">
      <h3 className="sticky top-0 z-10 flex items-baseline gap-2 border-b border-line bg-bg px-4 py-2">
        <span className="font-medium">{title}</span>
        <span className="truncate text-sm text-muted">{targetName(evaluation)}</span>
      </h3>
      {answers.error && <div className="p-4"><ProblemNotice error={answers.error} /></div>}
      {!answers.data && !answers.error && <SkeletonLines count={6} className="p-4" />}
      {answers.data?.length === 0 && <Empty title="Its answer is not here">The rows of this report were removed, or are of another shape.</Empty>}
      {answers.data?.map((row, i) => (
        <div key={textOf(row.id)} className="border-b border-line last:border-b-0">
          {(answers.data.length > 1) && <p className="px-4 pt-2 text-sm text-muted">Answer {i + 1} of {answers.data.length}</p>}
          <AnswerView row={row} />
        </div>
      ))}
    </section>
  );
}
