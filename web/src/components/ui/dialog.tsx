import { Dialog as Base } from "@base-ui/react/dialog";
import { X } from "lucide-react";
import { type ReactNode, useRef } from "react";

import { cn } from "@/lib/cn";

import { IconButton } from "./button";

type Props = { title: string; about?: ReactNode; open: boolean; onClose: () => void; children: ReactNode; wide?: boolean };

/** Focus goes to what is marked `data-first`: a field, or the harmless one of two buttons. */
export function Dialog({ title, about, open, onClose, children, wide = false }: Props) {
  const popup = useRef<HTMLDivElement>(null);
  return (
    <Base.Root open={open} onOpenChange={(next) => !next && onClose()}>
      <Base.Portal>
        <Base.Backdrop className="fixed inset-0 z-40 bg-[oklch(0_0_0/0.35)] transition-opacity duration-100 data-ending-style:opacity-0 data-starting-style:opacity-0" />
        <Base.Popup
          ref={popup}
          initialFocus={() => popup.current?.querySelector<HTMLElement>("[data-first]") ?? true}
          className={cn(
            "pop fixed top-[14vh] left-1/2 z-50 flex max-h-[76vh] w-[calc(100vw-2rem)] -translate-x-1/2 flex-col overflow-hidden rounded-lg bg-raised shadow-pop outline-none",
            wide ? "max-w-2xl" : "max-w-md",
          )}
        >
          <header className="flex items-start gap-3 px-4 pt-4 pb-1">
            <div className="min-w-0 flex-1">
              <Base.Title className="text-lg font-semibold">{title}</Base.Title>
              {about && <Base.Description className="mt-0.5 text-muted">{about}</Base.Description>}
            </div>
            <Base.Close render={<IconButton label="Close" className="-mt-1 -mr-1" />}>
              <X />
            </Base.Close>
          </header>
          <div className="min-h-0 overflow-auto px-4 pt-2 pb-4">{children}</div>
        </Base.Popup>
      </Base.Portal>
    </Base.Root>
  );
}

/** Buttons at the bottom of a dialog. */
export function DialogActions({ children }: { children: ReactNode }) {
  return <div className="mt-4 flex items-center justify-end gap-2">{children}</div>;
}

/** What will happen, as a list. */
export function Consequences({ children }: { children: ReactNode }) {
  return <ul className="mb-3 flex list-disc flex-col gap-1 pl-4 text-muted marker:text-faint">{children}</ul>;
}
