import { useCallback, useEffect, useRef, useState } from "react";

import { type LogPage, logsRead } from "@/api";
import { openStream } from "@/lib/live";

import { append, type Buffer, EMPTY, isAtEnd, isAtStart, prepend } from "./buffer";

const TAIL_LINES = 2000;
const PAGE_LINES = 2000;
/** Before a line that the address names. */
const LEAD_LINES = 500;

export type Log = {
  readonly buffer: Buffer;
  readonly isPending: boolean;
  readonly error: unknown;
  readonly isLive: boolean;
  readonly loadEarlier: () => void;
  readonly loadLater: () => void;
};

/** A rank's log: from its end, or around `line`; live where the end is in sight, otherwise page by page. Mount it anew for another log. */
export function useLog(attempt: string, rank: number, line: number | undefined): Log {
  const [buffer, setBuffer] = useState<Buffer>(EMPTY);
  const [isPending, setIsPending] = useState(true);
  const [error, setError] = useState<unknown>(null);
  const [anchor] = useState(line);
  const isLoading = useRef(false);
  const isLive = !isPending && !buffer.complete && isAtEnd(buffer);
  const latest = useRef(buffer);
  useEffect(() => {
    latest.current = buffer;
  });

  useEffect(() => {
    const abort = new AbortController();
    const first = anchor === undefined ? read({ attempt, rank, tail: TAIL_LINES }, abort.signal).then((page) => append(EMPTY, page)) : around(attempt, rank, anchor, abort.signal);
    first.then(
      (loaded) => {
        setBuffer(loaded);
        setIsPending(false);
      },
      (problem: unknown) => {
        if (abort.signal.aborted) return;
        setError(problem);
        setIsPending(false);
      },
    );
    return () => abort.abort();
  }, [attempt, rank, anchor]);

  useEffect(() => {
    if (!isLive) return;
    return openStream(() => `/api/v1/logs/stream?attempt=${attempt}&rank=${rank}&offset=${latest.current.end}`, {
      lines: (data) => setBuffer((before) => append(before, data as LogPage)),
      end: () => setBuffer((before) => ({ ...before, complete: true })),
    });
  }, [attempt, rank, isLive]);

  const load = useCallback((query: Parameters<typeof read>[0], take: (before: Buffer, page: LogPage) => Buffer) => {
    if (isLoading.current) return;
    isLoading.current = true;
    read(query)
      .then((page) => setBuffer((before) => take(before, page)), setError)
      .finally(() => {
        isLoading.current = false;
      });
  }, []);

  const loadEarlier = useCallback(() => {
    const { lines } = latest.current;
    if (isAtStart(latest.current) || lines.length === 0) return;
    load({ attempt, rank, before: lines[0]?.offset ?? 0, limit: PAGE_LINES }, prepend);
  }, [attempt, rank, load]);

  const loadLater = useCallback(() => {
    if (isAtEnd(latest.current)) return;
    load({ attempt, rank, offset: latest.current.end, limit: PAGE_LINES }, append);
  }, [attempt, rank, load]);

  return { buffer, isPending, error, isLive, loadEarlier, loadLater };
}

type Query = { attempt: string; rank: number; offset?: number; limit?: number; tail?: number; before?: number };

/** Lines before and after a place, counted in lines: the place is in sight however short they are. */
async function around(attempt: string, rank: number, anchor: number, signal: AbortSignal): Promise<Buffer> {
  const before = await read({ attempt, rank, before: anchor, limit: LEAD_LINES }, signal);
  const start = before.lines.length > 0 ? before.next_offset : anchor;
  const after = await read({ attempt, rank, offset: start, limit: PAGE_LINES }, signal);
  return append(append(EMPTY, { ...before, next_offset: start }), after);
}

async function read(query: Query, signal?: AbortSignal): Promise<LogPage> {
  return (await logsRead({ query, throwOnError: true, ...(signal ? { signal } : {}) })).data;
}

/** The whole log as a file, read page by page. */
export async function downloadLog(attempt: string, rank: number): Promise<void> {
  const parts: string[] = [];
  for (let offset = 0; ; ) {
    const page = await read({ attempt, rank, offset, limit: 10_000 });
    parts.push(...page.lines.map((line) => `${line.text}\n`));
    if (page.lines.length === 0 || page.next_offset >= page.end_offset) break;
    offset = page.next_offset;
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(parts, { type: "text/plain" }));
  link.download = `${attempt}-rank-${rank}.log`;
  link.click();
  URL.revokeObjectURL(link.href);
}
