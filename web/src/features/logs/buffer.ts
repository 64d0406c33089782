import type { LogLine, LogPage } from "@/api";

/** A stretch of a rank's log without holes. Pure. */
export type Buffer = {
  readonly lines: readonly LogLine[];
  /** Byte where the next line begins. */
  readonly end: number;
  /** Bytes known to the platform. */
  readonly known: number;
  /** Nothing more will come after `known`. */
  readonly complete: boolean;
};

export const EMPTY: Buffer = { lines: [], end: 0, known: 0, complete: false };
const MOST_LINES = 100_000;

/** Lines after what is there; what is there already is skipped. The oldest lines go when there are too many: they are still in the store. */
export function append(buffer: Buffer, page: LogPage): Buffer {
  const fresh = page.lines.filter((line) => line.offset >= buffer.end);
  const lines = [...buffer.lines, ...fresh];
  return {
    lines: lines.length > MOST_LINES ? lines.slice(-MOST_LINES) : lines,
    end: Math.max(buffer.end, page.next_offset),
    known: Math.max(buffer.known, page.end_offset),
    complete: buffer.complete || page.complete,
  };
}

/** Lines before what is there. A page that does not reach up to it would leave a hole, and is not taken. */
export function prepend(buffer: Buffer, page: LogPage): Buffer {
  const first = buffer.lines[0]?.offset ?? buffer.end;
  const earlier = page.lines.filter((line) => line.offset < first);
  if (page.next_offset < first) return buffer;
  return { ...buffer, lines: [...earlier, ...buffer.lines], known: Math.max(buffer.known, page.end_offset) };
}

export const isAtStart = (buffer: Buffer): boolean => (buffer.lines[0]?.offset ?? 0) === 0;
export const isAtEnd = (buffer: Buffer): boolean => buffer.end >= buffer.known;
