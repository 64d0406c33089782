import { type ReactNode, useEffect, useRef, useState } from "react";

import { cn } from "@/lib/cn";

/** Mounts its children only while they are near the viewport: two hundred charts on a page cost what the visible ones cost. */
export function WhenVisible({ height, isWide = false, children }: { height: number; isWide?: boolean; children: ReactNode }) {
  const box = useRef<HTMLDivElement>(null);
  const [isNear, setIsNear] = useState(false);
  useEffect(() => {
    if (!box.current) return;
    const observer = new IntersectionObserver(([entry]) => setIsNear(entry?.isIntersecting ?? false), { rootMargin: "250px" });
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return (
    <div ref={box} className={cn("grid", isWide && "col-span-full")} style={{ minHeight: height }}>
      {isNear && children}
    </div>
  );
}
