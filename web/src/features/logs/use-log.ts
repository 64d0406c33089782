import { useCallback, useEffect, useRef, useState } from "react";

import { type LogPage, logsRead } from "@/api";
import { openStream } from "@/lib/live";

import { append, type Buffer, EMPTY, isAtEnd, isAtStart, prepend } from "./buffer";

const TAIL_LINES = 2000;
const STRETCH_BYTES = 256 * 1024;
const PAGE_LINES = 5000;

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
    const start = anchor === undefined ? null : Math.max(0, anchor - STRETCH_BYTES / 2);
    const query = start === null ? { attempt, rank, tail: TAIL_LINES } : { attempt, rank, offset: start, limit: PAGE_LINES };
    read(query, abort.signal).then(
      (page) => {
        setBuffer(append({ ...EMPTY, end: start ?? 0 }, start ? { ...page, lines: page.lines.slice(1) } : page));
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
    const offset = Math.max(0, (lines[0]?.offset ?? 0) - STRETCH_BYTES);
    load({ attempt, rank, offset, limit: 10_000 }, (before, page) => prepend(before, page, offset === 0));
  }, [attempt, rank, load]);

  const loadLater = useCallback(() => {
    if (isAtEnd(latest.current)) return;
    load({ attempt, rank, offset: latest.current.end, limit: PAGE_LINES }, append);
  }, [attempt, rank, load]);

  return { buffer, isPending, error, isLive, loadEarlier, loadLater };
}

type Query = { attempt: string; rank: number; offset?: number; limit?: number; tail?: number };

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
