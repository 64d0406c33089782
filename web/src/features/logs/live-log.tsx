import type { AttemptOut } from "@/api";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { bytes } from "@/lib/format";

import { isAtStart } from "./buffer";
import { LogLines } from "./log-lines";
import { useLog } from "./use-log";

type Props = {
  attempt: AttemptOut;
  rank: number;
  line: number | undefined;
  follow: boolean;
  onFollow: (follow: boolean) => void;
  onLine: (offset: number) => void;
};

export function LiveLog({ attempt, rank, line, follow, onFollow, onLine }: Props) {
  const log = useLog(attempt.id, rank, line);
  if (log.isPending) return <SkeletonLines count={9} className="p-4" />;
  if (log.error) return <div className="p-4"><ProblemNotice error={log.error} /></div>;
  if (log.buffer.lines.length === 0) {
    return (
      <Empty title={log.buffer.complete ? "It printed nothing" : "Nothing printed yet"} command={`abruzzi logs ${attempt.run_id} ${attempt.stage_id} --follow`}>
        Lines appear here as they are printed.
      </Empty>
    );
  }
  return (
    <>
      <LogLines
        label={`Log of ${attempt.id}, rank ${rank}`}
        lines={log.buffer.lines}
        line={line}
        query=""
        follow={follow}
        onFollow={onFollow}
        onLine={onLine}
        onTop={log.loadEarlier}
        onBottom={log.loadLater}
      />
      <footer className="flex gap-3 border-t border-line px-4 py-1 text-sm text-muted">
        <span>{log.isLive ? "Live" : log.buffer.complete ? "Complete" : "Scroll down for more"}</span>
        <span>{bytes(log.buffer.known)}</span>
        {!isAtStart(log.buffer) && <span>Scroll up for earlier lines</span>}
      </footer>
    </>
  );
}
