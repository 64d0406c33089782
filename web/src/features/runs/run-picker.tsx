import { Popover } from "@base-ui/react/popover";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { Command } from "cmdk";
import { Plus } from "lucide-react";
import { useState } from "react";

import { runsListOptions } from "@/api/@tanstack/react-query.gen";
import { Button } from "@/components/ui/button";
import { ago } from "@/lib/format";
import { useHighlight } from "@/lib/highlight";
import { useNow } from "@/lib/now";

import { StateMark } from "./state-mark";

const SHOWN = 30;

/** A run, found by its name, its recipe's or its id among all there are. */
export function RunPicker({ chosen, onPick }: { chosen: readonly string[]; onPick: (id: string) => void }) {
  const [isOpen, setIsOpen] = useState(false);
  return (
    <Popover.Root open={isOpen} onOpenChange={setIsOpen}>
      <Popover.Trigger
        render={
          <Button>
            <Plus /> Add a run
          </Button>
        }
      />
      <Popover.Portal>
        <Popover.Positioner sideOffset={4} align="start" className="z-30">
          <Popover.Popup aria-label="Add a run" className="pop w-96 overflow-hidden rounded-lg bg-raised shadow-pop outline-none">
            <Search
              chosen={chosen}
              onPick={(id) => {
                setIsOpen(false);
                onPick(id);
              }}
            />
          </Popover.Popup>
        </Popover.Positioner>
      </Popover.Portal>
    </Popover.Root>
  );
}

function Search({ chosen, onPick }: { chosen: readonly string[]; onPick: (id: string) => void }) {
  const now = useNow();
  const [text, setText] = useState("");
  const found = useQuery({ ...runsListOptions({ query: { limit: SHOWN, ...(text.trim() ? { q: text.trim() } : {}) } }), placeholderData: keepPreviousData });
  const offered = found.data?.items.filter((run) => !chosen.includes(run.id)) ?? [];
  const highlight = useHighlight(offered.map((run) => run.id));
  return (
    <Command label="Add a run" shouldFilter={false} {...highlight}>
      <Command.Input
        value={text}
        onValueChange={setText}
        placeholder="Name, recipe or id"
        className="h-9 w-full border-b border-line bg-transparent px-3 outline-none placeholder:text-faint"
      />
      <Command.List className="max-h-80 overflow-auto p-1.5">
        {found.data && offered.length === 0 && <Command.Empty className="px-3 py-4 text-center text-muted">No run is called that.</Command.Empty>}
        {offered.map((run) => (
          <Command.Item key={run.id} value={run.id} onSelect={() => onPick(run.id)} className="flex cursor-default items-center gap-2.5 rounded-md px-2 py-1.5 data-[selected=true]:bg-hover">
            <StateMark state={run.state} />
            <span className="min-w-0 flex-1">
              <span className="block truncate">{run.name}</span>
              <span className="block truncate text-sm text-muted">
                {run.recipe_name}, {ago(run.created_at, now)}
              </span>
            </span>
            <span className="font-mono text-sm text-faint">{run.id}</span>
          </Command.Item>
        ))}
      </Command.List>
    </Command>
  );
}
