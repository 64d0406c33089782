import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { Command } from "cmdk";
import { GitCompareArrows, KeyRound, List, Monitor, Moon, Plus, Sun } from "lucide-react";
import { type ReactNode, useState } from "react";

import { runsListOptions } from "@/api/@tanstack/react-query.gen";
import { StateMark } from "@/features/runs/state-mark";
import { setTheme } from "@/lib/theme";

import { RUN_TABS } from "./search";

const ITEM = "flex cursor-default items-center gap-2.5 rounded-md px-2.5 py-2 data-[selected=true]:bg-hover [&>svg]:size-4 [&>svg]:text-muted";

/** ⌘K: jump to any run by name or id, go to a page, act. */
export default function Palette({ onClose }: { onClose: () => void }) {
  const navigate = useNavigate();
  const { runId } = useParams({ strict: false });
  const [text, setText] = useState("");
  const runs = useQuery({ ...runsListOptions({ query: { limit: 8, ...(text.trim() ? { q: text.trim() } : {}) } }), placeholderData: (before) => before });
  const act = (action: () => void) => () => {
    onClose();
    action();
  };
  return (
    <Command.Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      label="Search and act"
      overlayClassName="fixed inset-0 z-40 bg-[oklch(0_0_0/0.35)]"
      contentClassName="fixed top-[14vh] left-1/2 z-50 w-[calc(100vw-2rem)] max-w-xl -translate-x-1/2 overflow-hidden rounded-lg bg-raised shadow-pop outline-none"
      shouldFilter
    >
      <Command.Input
        value={text}
        onValueChange={setText}
        placeholder="Run, page or action"
        className="h-11 w-full border-b border-line bg-transparent px-4 text-lg outline-none placeholder:text-faint"
      />
      <Command.List className="max-h-[50vh] overflow-auto p-1.5">
        <Command.Empty className="px-3 py-6 text-center text-muted">Nothing is called that.</Command.Empty>
        {runId && (
          <Group title="This run">
            {RUN_TABS.map((tab) => (
              <Command.Item key={tab} value={`this run ${tab}`} className={ITEM} onSelect={act(() => void navigate({ to: "/runs/$runId", params: { runId }, search: (old) => ({ ...old, tab }) }))}>
                <List /> Show {tab}
              </Command.Item>
            ))}
            <Command.Item value="new run from this recipe" className={ITEM} onSelect={act(() => void navigate({ to: "/runs/new", search: { from: runId } }))}>
              <Plus /> New run from this recipe
            </Command.Item>
          </Group>
        )}
        <Group title="Runs">
          {(runs.data?.items ?? []).map((run) => (
            <Command.Item key={run.id} value={`${run.name} ${run.recipe_name} ${run.id}`} className={ITEM} onSelect={act(() => void navigate({ to: "/runs/$runId", params: { runId: run.id } }))}>
              <span>
                <StateMark state={run.state} />
              </span>
              <span className="flex-1 truncate">{run.name}</span>
              <span className="font-mono text-sm text-faint">{run.id}</span>
            </Command.Item>
          ))}
        </Group>
        <Group title="Go to">
          <Command.Item className={ITEM} onSelect={act(() => void navigate({ to: "/runs" }))}>
            <List /> Runs
          </Command.Item>
          <Command.Item className={ITEM} onSelect={act(() => void navigate({ to: "/runs/new" }))}>
            <Plus /> New run
          </Command.Item>
          <Command.Item className={ITEM} onSelect={act(() => void navigate({ to: "/compare" }))}>
            <GitCompareArrows /> Compare
          </Command.Item>
          <Command.Item className={ITEM} onSelect={act(() => void navigate({ to: "/tokens" }))}>
            <KeyRound /> Tokens
          </Command.Item>
        </Group>
        <Group title="Theme">
          <Command.Item className={ITEM} onSelect={act(() => setTheme("light"))}>
            <Sun /> Light theme
          </Command.Item>
          <Command.Item className={ITEM} onSelect={act(() => setTheme("dark"))}>
            <Moon /> Dark theme
          </Command.Item>
          <Command.Item className={ITEM} onSelect={act(() => setTheme("system"))}>
            <Monitor /> Theme of the system
          </Command.Item>
        </Group>
      </Command.List>
    </Command.Dialog>
  );
}

function Group({ title, children }: { title: string; children: ReactNode }) {
  return (
    <Command.Group heading={title} className="[&_[cmdk-group-heading]]:px-2.5 [&_[cmdk-group-heading]]:pt-2 [&_[cmdk-group-heading]]:pb-1 [&_[cmdk-group-heading]]:text-sm [&_[cmdk-group-heading]]:text-muted">
      {children}
    </Command.Group>
  );
}
