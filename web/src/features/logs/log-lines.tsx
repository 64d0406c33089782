import { useVirtualizer } from "@tanstack/react-virtual";
import { CornerDownRight, Link } from "lucide-react";
import { memo, type RefObject, useEffect, useLayoutEffect, useRef } from "react";

import type { LogLine } from "@/api";
import { cn } from "@/lib/cn";

import { highlight, severity, visibleText } from "./lines";

const ROW_PIXELS = 19;
const NEAR_ROWS = 60;
const BOTTOM_PIXELS = 30;

type Props = {
  lines: readonly LogLine[];
  /** Offset of the line that the address names. */
  line: number | undefined;
  query: string;
  follow: boolean;
  onFollow: (follow: boolean) => void;
  onLine: (offset: number) => void;
  onTop: () => void;
  onBottom: () => void;
  label: string;
};

/** Lines of a log as a virtual list. It stays where the reader is: at the end while following, else at the same line. */
export function LogLines({ lines, line, query, follow, onFollow, onLine, onTop, onBottom, label }: Props) {
  const scroll = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: lines.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => ROW_PIXELS,
    getItemKey: (index) => lines[index]?.offset ?? index,
    overscan: 30,
  });
  useKeepPlace(scroll, lines);
  const anchored = useRef(false);
  const count = lines.length;
  useEffect(() => {
    if (anchored.current || line === undefined || count === 0) return;
    anchored.current = true;
    const index = lines.findIndex((other) => other.offset >= line);
    if (index >= 0) virtual.scrollToIndex(index, { align: "center" });
  }, [virtual, lines, line, count]);
  useEffect(() => {
    if (follow && count > 0) virtual.scrollToIndex(count - 1, { align: "end" });
  }, [virtual, follow, count]);

  function onScroll(): void {
    const box = scroll.current;
    if (!box) return;
    const below = box.scrollHeight - box.scrollTop - box.clientHeight;
    if (box.scrollTop < NEAR_ROWS * ROW_PIXELS) onTop();
    if (below < NEAR_ROWS * ROW_PIXELS) onBottom();
    if (follow && below > BOTTOM_PIXELS * 4) onFollow(false);
  }

  return (
    // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a box that scrolls must be reachable by keyboard
    <div ref={scroll} tabIndex={0} role="region" aria-label={label} onScroll={onScroll} className="min-h-0 flex-1 overflow-auto bg-sunken py-2 font-mono text-sm">
      <div className="relative min-w-full" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((item) => {
          const shown = lines[item.index];
          return shown && <Row key={item.key} line={shown} top={item.start} isNamed={shown.offset === line} query={query} onLine={onLine} />;
        })}
      </div>
    </div>
  );
}

type RowProps = { line: LogLine; top: number; isNamed: boolean; query: string; onLine: (offset: number) => void };

const Row = memo(function Row({ line, top, isNamed, query, onLine }: RowProps) {
  const text = visibleText(line.text);
  const tone = severity(text);
  const isHit = query !== "";
  const content = (
    <span className={cn("whitespace-pre", tone === "bad" && "text-bad", tone === "warn" && "text-warn")}>
      {highlight(text, query).map((piece, i) => (piece.hit ? <mark key={i} className="rounded-xs bg-warn-soft text-inherit outline-1 outline-warn">{piece.text}</mark> : piece.text))}
    </span>
  );
  const sign = "sticky left-0 flex h-full w-8 shrink-0 items-center justify-center text-faint opacity-0 group-hover/line:opacity-100";
  const place = { height: ROW_PIXELS, transform: `translateY(${top}px)` };
  const box = cn("group/line absolute left-0 flex w-max min-w-full items-center pr-4 text-left hover:bg-hover", isNamed && "bg-selected");
  // Hits are what somebody looks for, so each can be reached by keyboard; of a whole log there are too many lines to walk through.
  if (isHit) {
    return (
      <button type="button" data-offset={line.offset} className={cn(box, "-outline-offset-2")} style={place} title="Show it in its place" onClick={() => onLine(line.offset)}>
        <span className={sign}>
          <CornerDownRight className="size-3" aria-hidden />
        </span>
        {content}
      </button>
    );
  }
  return (
    <div data-offset={line.offset} className={box} style={place}>
      <button
        type="button"
        tabIndex={-1}
        aria-label={`Link to this line, byte ${line.offset}`}
        title="Link to this line"
        onClick={() => onLine(line.offset)}
        className={cn(sign, isNamed && "text-accent opacity-100")}
      >
        <Link className="size-3" />
      </button>
      {content}
    </div>
  );
});

/** When lines are put before the first one, the view moves with them. */
function useKeepPlace(scroll: RefObject<HTMLDivElement | null>, lines: readonly LogLine[]): void {
  const first = useRef<number | undefined>(undefined);
  useLayoutEffect(() => {
    const before = first.current;
    first.current = lines[0]?.offset;
    if (before === undefined || first.current === undefined || first.current >= before || !scroll.current) return;
    const added = lines.findIndex((line) => line.offset === before);
    if (added > 0) scroll.current.scrollTop += added * ROW_PIXELS;
  }, [scroll, lines]);
}
