import { useQuery } from "@tanstack/react-query";
import { useNavigate, useParams } from "@tanstack/react-router";
import { Command } from "cmdk";
import { ChartColumnStacked, ChartGantt, ChartNoAxesColumn, Database, Dumbbell, GitCompareArrows, KeyRound, List, Monitor, Moon, Plus, Scale, Server, Sun } from "lucide-react";
import { type ReactNode, useState } from "react";

import { poolsListOptions, runsListOptions } from "@/api/@tanstack/react-query.gen";
import { StateMark } from "@/features/runs/state-mark";
import { useHighlight } from "@/lib/highlight";
import { setTheme } from "@/lib/theme";

import { RUN_TABS } from "./search";

const ITEM = "flex cursor-default items-center gap-2.5 rounded-md px-2.5 py-2 data-[selected=true]:bg-hover [&>svg]:size-4 [&>svg]:text-muted";

interface Entry {
  readonly group: string;
  /** What it is found by; unique. */
  readonly value: string;
  readonly label: string;
  readonly icon: ReactNode;
  readonly detail?: string;
  readonly act: () => void;
}

/** ⌘K: jump to any run by name or id, go to a page, act. */
export default function Palette({ onClose }: { onClose: () => void }) {
  const navigate = useNavigate();
  const { runId } = useParams({ strict: false });
  const [text, setText] = useState("");
  const runs = useQuery({ ...runsListOptions({ query: { limit: 8, ...(text.trim() ? { q: text.trim() } : {}) } }), placeholderData: (before) => before });
  const pools = useQuery({ ...poolsListOptions(), staleTime: 60_000 });
  const go = (to: "/runs" | "/data" | "/evaluations" | "/environments" | "/rubrics" | "/pools" | "/usage" | "/plan" | "/runs/new" | "/compare" | "/tokens") => () => void navigate({ to });
  const entries: Entry[] = [
    ...(runId
      ? [
          ...RUN_TABS.map((tab) => ({
            group: "This run", value: `this run ${tab}`, label: `Show ${tab}`, icon: <List />,
            act: () => void navigate({ to: "/runs/$runId", params: { runId }, search: (old) => ({ ...old, tab }) }),
          })),
          { group: "This run", value: "new run from this recipe", label: "New run from this recipe", icon: <Plus />, act: () => void navigate({ to: "/runs/new", search: { from: runId } }) },
        ]
      : []),
    ...(runs.data?.items ?? []).map((run) => ({
      group: "Runs", value: `${run.name} ${run.recipe_name} ${run.id}`, label: run.name, icon: <span><StateMark state={run.state} /></span>, detail: run.id,
      act: () => void navigate({ to: "/runs/$runId", params: { runId: run.id } }),
    })),
    ...(pools.data?.items ?? []).map((pool) => ({
      group: "Pools", value: `pool ${pool.name} ${pool.spec.flavor ?? ""}`, label: pool.name, icon: <Server />, detail: pool.spec.flavor ?? "",
      act: () => void navigate({ to: "/pools/$name", params: { name: pool.name } }),
    })),
    { group: "Go to", value: "Runs", label: "Runs", icon: <List />, act: go("/runs") },
    { group: "Go to", value: "New run", label: "New run", icon: <Plus />, act: go("/runs/new") },
    { group: "Go to", value: "Data", label: "Data", icon: <Database />, act: go("/data") },
    { group: "Go to", value: "Evaluations leaderboard", label: "Evaluations", icon: <ChartNoAxesColumn />, act: go("/evaluations") },
    { group: "Go to", value: "Environments", label: "Environments", icon: <Dumbbell />, act: go("/environments") },
    { group: "Go to", value: "Rubrics", label: "Rubrics", icon: <Scale />, act: go("/rubrics") },
    { group: "Go to", value: "Pools", label: "Pools", icon: <Server />, act: go("/pools") },
    { group: "Go to", value: "Plan", label: "Plan", icon: <ChartGantt />, act: go("/plan") },
    { group: "Go to", value: "Usage", label: "Usage", icon: <ChartColumnStacked />, act: go("/usage") },
    { group: "Go to", value: "Compare", label: "Compare", icon: <GitCompareArrows />, act: go("/compare") },
    { group: "Go to", value: "Tokens", label: "Tokens", icon: <KeyRound />, act: go("/tokens") },
    { group: "Theme", value: "Light theme", label: "Light theme", icon: <Sun />, act: () => setTheme("light") },
    { group: "Theme", value: "Dark theme", label: "Dark theme", icon: <Moon />, act: () => setTheme("dark") },
    { group: "Theme", value: "Theme of the system", label: "Theme of the system", icon: <Monitor />, act: () => setTheme("system") },
  ];
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = entries.filter((entry) => words.every((word) => entry.value.toLowerCase().includes(word)));
  const highlight = useHighlight(found.map((entry) => entry.value));
  return (
    <Command.Dialog
      open
      onOpenChange={(open) => !open && onClose()}
      label="Search and act"
      overlayClassName="fixed inset-0 z-40 bg-[oklch(0_0_0/0.35)]"
      contentClassName="fixed top-[14vh] left-1/2 z-50 w-[calc(100vw-2rem)] max-w-xl -translate-x-1/2 overflow-hidden rounded-lg bg-raised shadow-pop outline-none"
      shouldFilter={false}
      {...highlight}
    >
      <Command.Input
        value={text}
        onValueChange={setText}
        placeholder="Run, page or action"
        className="h-11 w-full border-b border-line bg-transparent px-4 text-lg outline-none placeholder:text-faint"
      />
      <Command.List className="max-h-[50vh] overflow-auto p-1.5">
        {found.length === 0 && <Command.Empty className="px-3 py-6 text-center text-muted">Nothing is called that.</Command.Empty>}
        {[...new Set(found.map((entry) => entry.group))].map((group) => (
          <Group key={group} title={group}>
            {found
              .filter((entry) => entry.group === group)
              .map(({ value, icon, label, detail, act }) => (
                <Command.Item
                  key={value}
                  value={value}
                  className={ITEM}
                  onSelect={() => {
                    onClose();
                    act();
                  }}
                >
                  {icon}
                  <span className="flex-1 truncate">{label}</span>
                  {detail && <span className="font-mono text-sm text-faint">{detail}</span>}
                </Command.Item>
              ))}
          </Group>
        ))}
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
