import { type ReactNode, useEffect, useRef } from "react";

import type { ArtifactOut, NounOut, ReviewOut, Verdict } from "@/api";
import type { DatasetSearch } from "@/app/search";
import { Button } from "@/components/ui/button";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { Progress, SkeletonLines } from "@/components/ui/progress";
import { useMayReadAttacks } from "@/features/session/may";
import { whole } from "@/lib/format";
import { useShortcuts } from "@/lib/keys";
import { textOf } from "@/lib/unknown";

import { Detail } from "./detail";
import { type Change, Filters } from "./filters";
import { isReviewed, nounOf } from "./listing";
import { useReviewing, useRow, useRows } from "./queries";
import { RowList } from "./row-list";

/** So many are fetched unasked: a queue is counted, and a first screen is filled although most rows do not match. */
const FILL = 40;
const COUNTED = 2000;

/** What a page of its own always asks for, beside what people set; `lead` stands before their filters. */
export type Fixed = { readonly fate: readonly string[]; readonly where: readonly string[]; readonly lead: ReactNode };
type Props = { artifact: ArtifactOut; noun: NounOut; view: DatasetSearch; onView: (change: Change) => void; isQueue?: boolean; fixed?: Fixed };
type Decision = { rowId: string; position: string; before: ReviewOut | null };

/** Rows of a noun: the list, and the one that is open beside it. As a queue: those that people decide about, one after the other. */
export default function Explorer({ artifact, noun, view, onView, isQueue = false, fixed }: Props) {
  const field = useRef<HTMLInputElement>(null);
  const decisions = useRef<Decision[]>([]);
  const filter = isQueue ? { fate: ["review"], review: "none" as const } : { fate: fixed?.fate ?? view.fate };
  const { data, error, isPending, hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage } = useRows(artifact.id, { noun: noun.noun, q: view.q, where: [...(fixed?.where ?? []), ...(view.where ?? [])], ...filter });
  const rows = data?.pages.flatMap((page) => page.items) ?? [];
  const looked = data?.pages.reduce((sum, page) => sum + page.scanned, 0) ?? 0;
  const more = () => void (hasNextPage && !isFetchingNextPage && !isFetchNextPageError && fetchNextPage());
  const wanted = isQueue ? COUNTED : FILL;
  useEffect(() => {
    if (rows.length < wanted && hasNextPage && !isFetchingNextPage && !isFetchNextPageError) void fetchNextPage();
  }, [rows.length, wanted, hasNextPage, isFetchingNextPage, isFetchNextPageError, fetchNextPage, looked]);

  const open = view.row ?? rows[0]?.position;
  const index = rows.findIndex((row) => row.position === open);
  const row = useRow(artifact.id, noun.noun, open);
  // A row that the address names may be none of the list's.
  const current = rows[index] ?? (row.isPlaceholderData ? undefined : (row.data ?? undefined));
  const move = (by: number) => {
    const next = rows[Math.max(0, Math.min(rows.length - 1, index + by))];
    if (next) onView({ row: next.position });
    if (index + by >= rows.length - 10) more();
  };
  const review = useReviewing(artifact.id);
  const decide = (verdict: Verdict) => {
    if (!current) return;
    const rowId = textOf(current.row.id);
    decisions.current.push({ rowId, position: current.position, before: current.review });
    review({ rowId, verdict, note: current.review?.verdict === verdict ? current.review.note : "", before: current.review });
    const next = rows.slice(index + 1).find((row) => !row.review) ?? (isQueue ? rows.find((row) => !row.review && row.position !== current.position) : undefined);
    if (isQueue && next) onView({ row: next.position });
  };
  const undo = () => {
    const last = decisions.current.pop();
    if (!last) return;
    const now = [current, ...rows].find((one) => one?.position === last.position)?.review ?? null;
    review({ rowId: last.rowId, verdict: last.before?.verdict ?? null, note: last.before?.note ?? "", before: now });
    onView({ row: last.position });
  };
  const mayReadAttacks = useMayReadAttacks();
  const canReview = isReviewed(noun.noun) && (noun.noun !== "redteam" || mayReadAttacks);
  useShortcuts(isQueue ? "Review" : "Rows", {
    j: ["Next row", () => move(1)],
    k: ["Previous row", () => move(-1)],
    "/": ["Find text", () => field.current?.focus()],
    ...(canReview ? { a: ["Accept", () => decide("accept")] as const, r: ["Reject", () => decide("reject")] as const, u: ["Undo the last verdict", undo] as const } : {}),
  });

  const waiting = rows.filter((row) => !row.review).length;
  const isFiltered = Boolean(view.q || view.where?.length || (!isQueue && view.fate?.length) || fixed?.fate.length || (fixed?.where.length ?? 0) > 1);
  return (
    <div className="flex h-full min-h-0 flex-col">
      <Filters noun={noun} view={view} onView={onView} field={field} withFates={!isQueue && !fixed} lead={fixed?.lead} />
      {isQueue && <QueueLine isAttacks={noun.noun === "redteam"} waiting={waiting} isCounted={!hasNextPage} decided={rows.length - waiting} />}
      {error && rows.length === 0 && <div className="p-4"><ProblemNotice error={error} /></div>}
      {isPending && !error && <SkeletonLines count={10} className="p-4" />}
      {data && rows.length === 0 && !hasNextPage && <Nothing noun={noun} isFiltered={isFiltered} isQueue={isQueue} onClear={() => onView({ q: undefined, where: undefined, fate: undefined, row: undefined })} />}
      {data && (rows.length > 0 || hasNextPage) && (
        <div className="grid min-h-0 flex-1 grid-rows-[15rem_1fr] lg:grid-cols-[minmax(17rem,25rem)_minmax(0,1fr)] lg:grid-rows-1">
          <div className="flex min-h-0 flex-col border-r border-line max-lg:border-b">
            <RowList noun={noun.noun} rows={rows} chosen={open} onChoose={(row) => onView({ row })} onEnd={more} label={nounOf(noun.noun).title} />
            <footer className="border-t border-line px-4 py-1.5 text-sm text-muted" role="status" aria-label="Rows shown">
              {whole(rows.length)} {rows.length === 1 ? "row" : "rows"}
              {hasNextPage ? (isFiltered || isQueue ? `; ${whole(looked)} of ${noun.rows === null ? "all" : whole(noun.rows)} looked at` : ` of ${noun.rows === null ? "more" : whole(noun.rows)}; scroll for more`) : ""}
              {isFetchingNextPage && <Progress share={null} label="Looking further" />}
              {isFetchNextPageError && <ProblemNotice error={error}><Button className="mt-2" onClick={() => void fetchNextPage()}>Try again</Button></ProblemNotice>}
            </footer>
          </div>
          <Detail
            key={noun.noun}
            artifact={artifact}
            noun={noun.noun}
            position={open}
            onWhere={(condition) => onView({ where: [...new Set([...(view.where ?? []), condition])], row: undefined })}
            onReview={canReview ? decide : undefined}
            onUndo={undo}
          />
        </div>
      )}
    </div>
  );
}

function QueueLine({ isAttacks, waiting, isCounted, decided }: { isAttacks: boolean; waiting: number; isCounted: boolean; decided: number }) {
  return (
    <div className="border-b border-line bg-sunken px-4 py-2" role="status" aria-label="Queue">
      <span className="font-medium">
        {whole(waiting)}
        {isCounted ? "" : " or more"} {waiting === 1 ? "waits" : "wait"}
      </span>
      <span className="text-muted">
        {decided > 0 && <>, {whole(decided)} decided just now</>}.{" "}
        {isAttacks
          ? "Rules and judge disagree about them. Safe: the model did not do what it must not do. Until somebody has decided, they count as failed."
          : "A stage that trains on them asks when it begins: what is accepted is trained on beside what was kept, what is rejected never is, what waits is left out."}
      </span>
    </div>
  );
}

function Nothing({ noun, isFiltered, isQueue, onClear }: { noun: NounOut; isFiltered: boolean; isQueue: boolean; onClear: () => void }) {
  if (isFiltered) return <Empty title="No row matches" action={<Button onClick={onClear}>Clear the filter</Button>} />;
  if (isQueue) {
    return (
      <Empty title="Nothing waits for a decision">
        {noun.noun === "redteam" ? "Every attack has a verdict; the matrix counts them." : "Every row is kept, rejected or decided. A fine-tuning stage that starts now trains on what was kept and accepted."}
      </Empty>
    );
  }
  return <Empty title={`No ${nounOf(noun.noun).title.toLowerCase()}`}>The stage wrote none; its log says why.</Empty>;
}
