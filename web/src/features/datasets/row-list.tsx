import { useVirtualizer } from "@tanstack/react-virtual";
import { useEffect, useRef } from "react";

import type { RowOut } from "@/api";
import { cn } from "@/lib/cn";
import { textOf } from "@/lib/unknown";

import { nounOf } from "./listing";
import { FateMark, ReviewMark } from "./marks";

const ROW_PIXELS = 52;

type Props = { noun: string; rows: readonly RowOut[]; chosen: string | undefined; onChoose: (position: string) => void; onEnd: () => void; label: string };

/** Rows as a virtual list; a hundred thousand cost what the visible ones cost. */
export function RowList({ noun, rows, chosen, onChoose, onEnd, label }: Props) {
  const scroll = useRef<HTMLDivElement>(null);
  const { listed } = nounOf(noun);
  const virtual = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => ROW_PIXELS,
    getItemKey: (index) => rows[index]?.position ?? index,
    overscan: 8,
    onChange: (instance) => {
      if ((instance.range?.endIndex ?? 0) >= rows.length - 15) onEnd();
    },
  });
  const index = rows.findIndex((row) => row.position === chosen);
  useEffect(() => {
    if (index >= 0) virtual.scrollToIndex(index);
  }, [virtual, index]);
  return (
    <div ref={scroll} role="list" aria-label={label} className="min-h-0 flex-1 overflow-auto">
      <div role="presentation" className="relative" style={{ height: virtual.getTotalSize() }}>
        {virtual.getVirtualItems().map((item) => {
          const one = rows[item.index];
          if (!one) return null;
          const { title, about, figure } = listed(one.row);
          const fate = textOf(one.row.fate);
          return (
            <div key={item.key} role="listitem" aria-setsize={rows.length} aria-posinset={item.index + 1} className="absolute inset-x-0" style={{ height: ROW_PIXELS, transform: `translateY(${item.start}px)` }}>
              <button
                type="button"
                aria-current={one.position === chosen ? "true" : undefined}
                onClick={() => onChoose(one.position)}
                className={cn("flex h-full w-full flex-col justify-center border-b border-line px-4 text-left -outline-offset-2 hover:bg-hover", one.position === chosen && "bg-selected")}
              >
                <span className="flex items-baseline gap-2">
                  <span className="min-w-0 flex-1 truncate font-medium">{title || textOf(one.row.id)}</span>
                  {figure && <span className="shrink-0 text-sm text-muted">{figure}</span>}
                </span>
                <span className="flex items-center gap-2 text-sm">
                  {one.review ? <ReviewMark review={one.review} /> : fate && <FateMark fate={fate} />}
                  <span className="min-w-0 flex-1 truncate text-muted">{about}</span>
                </span>
              </button>
            </div>
          );
        })}
      </div>
    </div>
  );
}
