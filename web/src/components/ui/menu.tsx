import { Menu as Base } from "@base-ui/react/menu";
import type { ReactElement, ReactNode } from "react";

import { cn } from "@/lib/cn";

export function Menu({ trigger, children }: { trigger: ReactElement; children: ReactNode }) {
  return (
    <Base.Root>
      <Base.Trigger render={trigger} />
      <Base.Portal>
        <Base.Positioner sideOffset={4} align="end" className="z-30 outline-none">
          <Base.Popup className="pop max-h-(--available-height) min-w-44 overflow-auto rounded-lg bg-raised p-1 shadow-pop outline-none">{children}</Base.Popup>
        </Base.Positioner>
      </Base.Portal>
    </Base.Root>
  );
}

export function MenuItem({ children, onClick, bad = false, hint }: { children: ReactNode; onClick: () => void; bad?: boolean; hint?: ReactNode }) {
  return (
    <Base.Item
      onClick={onClick}
      className={cn(
        "flex cursor-default items-center gap-2 rounded-sm px-2 py-1.5 outline-none data-highlighted:bg-hover [&_svg]:size-3.5 [&_svg]:text-muted",
        bad && "text-bad [&_svg]:text-bad",
      )}
    >
      <span className="flex flex-1 items-center gap-2">{children}</span>
      {hint && <span className="text-sm text-faint">{hint}</span>}
    </Base.Item>
  );
}

export const MenuLine = () => <Base.Separator className="my-1 h-px bg-line" />;
