import { useInfiniteQuery } from "@tanstack/react-query";

import { logsRead } from "@/api";
import { Button } from "@/components/ui/button";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { bytes, whole } from "@/lib/format";

import { LogLines } from "./log-lines";

const PAGE_LINES = 2000;

/** Lines that hold a text, found by the platform in the whole log; a click on one shows what is around it. */
export function FoundLines({ attempt, rank, query, onJump }: { attempt: string; rank: number; query: string; onJump: (offset: number) => void }) {
  const found = useInfiniteQuery({
    queryKey: ["log search", attempt, rank, query],
    queryFn: async ({ pageParam, signal }) => (await logsRead({ query: { attempt, rank, q: query, offset: pageParam, limit: PAGE_LINES }, signal, throwOnError: true })).data,
    initialPageParam: 0,
    getNextPageParam: (page) => (page.next_offset < page.end_offset && page.next_offset > 0 ? page.next_offset : undefined),
  });
  if (found.error && !found.data) return <div className="p-4"><ProblemNotice error={found.error} /></div>;
  if (!found.data) return <SkeletonLines count={6} className="p-4" />;
  const lines = found.data.pages.flatMap((page) => page.lines);
  const last = found.data.pages.at(-1);
  return (
    <>
      {lines.length > 0 ? (
        <LogLines label={`Lines with ${query}`} lines={lines} line={undefined} query={query} follow={false} onFollow={() => undefined} onLine={onJump} onTop={() => undefined} onBottom={() => undefined} />
      ) : (
        <Empty title={`No line holds “${query}”`}>{found.hasNextPage ? "So far: the log is long, search on." : "Upper and lower case are the same here."}</Empty>
      )}
      <footer className="flex items-center gap-3 border-t border-line px-4 py-1 text-sm text-muted">
        <span>
          {whole(lines.length)} {lines.length === 1 ? "line" : "lines"}. Enter or a click on one shows it in its place.
        </span>
        {found.hasNextPage && last && (
          <Button look="ghost" disabled={found.isFetchingNextPage} onClick={() => void found.fetchNextPage()}>
            Search on after {bytes(last.next_offset)}
          </Button>
        )}
      </footer>
    </>
  );
}
