import { cn } from "@/lib/cn";

import { CopyButton } from "./copy";

/** A command or a snippet, with a button that copies it. */
export function Code({ text, className }: { text: string; className?: string }) {
  return (
    <div className={cn("flex max-w-full items-start gap-2 rounded-md border border-line bg-sunken py-1 pr-1 pl-2.5 text-left", className)}>
      {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a box that may scroll must be reachable by keyboard */}
      <pre tabIndex={0} className="min-w-0 flex-1 overflow-x-auto py-0.5 font-mono text-sm whitespace-pre">
        {text}
      </pre>
      <CopyButton text={text} label="Copy" small />
    </div>
  );
}

export const Kbd = ({ children }: { children: string }) => (
  <kbd className="inline-flex h-5 min-w-5 items-center justify-center rounded-sm border border-line-strong bg-surface px-1 font-sans text-xs text-muted">{children}</kbd>
);
