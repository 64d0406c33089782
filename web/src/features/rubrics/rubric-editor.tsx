import { useMutation, useQueryClient } from "@tanstack/react-query";
import { Plus, Trash2 } from "lucide-react";
import { useState } from "react";

import { type Rubric, type RubricKind, type RubricSetOut, rubricsWrite } from "@/api";
import { Button, IconButton } from "@/components/ui/button";
import { Input, Select, Toggle } from "@/components/ui/field";
import { ProblemNotice } from "@/components/ui/notice";

import { EMPTY, faultOf, isChanged } from "./draft";

const KINDS: readonly RubricKind[] = ["core", "prescriptive", "human"];

/** `newest` is none for a new set. */
type Props = { name: string; from: RubricSetOut | undefined; newest: RubricSetOut | undefined; onDone: (version: number) => void; onCancel: () => void };

/** The next version of a set, made from any of them; stages that have begun keep the one that they were told. */
export function RubricEditor({ name, from, newest, onDone, onCancel }: Props) {
  const queryClient = useQueryClient();
  const version = newest?.version ?? 0;
  const [draft, setDraft] = useState<readonly Rubric[]>(from?.rubrics ?? [EMPTY]);
  const change = (place: number, by: Partial<Rubric>) => setDraft(draft.map((one, i) => (i === place ? { ...one, ...by } : one)));
  const save = useMutation({
    mutationFn: async () => (await rubricsWrite({ path: { rubrics_name: name }, body: { based_on: version, rubrics: [...draft] }, throwOnError: true })).data,
    onSuccess: async (made) => {
      await queryClient.invalidateQueries({ queryKey: [{ _id: "rubricsList" }] });
      await queryClient.invalidateQueries({ queryKey: [{ _id: "rubricsGet" }] });
      onDone(made.version);
    },
  });
  const fault = faultOf(draft);
  return (
    <form
      aria-label={`Edit ${name}`}
      className="flex flex-col gap-3 p-4"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate();
      }}
    >
      {draft.map((rubric, place) => (
        <fieldset key={place} className="flex flex-col gap-2 rounded-lg border border-line bg-surface p-3">
          <legend className="sr-only">{rubric.name || "New rubric"}</legend>
          <div className="flex flex-wrap items-center gap-2">
            <Input aria-label="Name" value={rubric.name} placeholder="name_of_it" className="w-60 font-medium" onChange={(event) => change(place, { name: event.target.value })} />
            <Select label="Kind" value={rubric.kind} onChange={(event) => change(place, { kind: event.target.value as RubricKind })}>
              {KINDS.map((kind) => (
                <option key={kind}>{kind}</option>
              ))}
            </Select>
            <span aria-hidden className="text-sm text-muted">weight</span>
            <Input aria-label="Weight" type="number" min={0.1} max={100} step={0.1} value={rubric.weight ?? 1} className="w-20" onChange={(event) => change(place, { weight: event.target.valueAsNumber })} />
            <Toggle label="Mandatory: who loses by it loses the pair" pressed={rubric.mandatory ?? false} onChange={(mandatory) => change(place, { mandatory })}>
              mandatory
            </Toggle>
            {rubric.check && <span className="text-sm text-muted">code looks first: {rubric.check.replaceAll("_", " ")}</span>}
            <div className="flex-1" />
            <IconButton label={`Remove ${rubric.name || "it"}`} onClick={() => setDraft(draft.filter((_, i) => i !== place))}>
              <Trash2 />
            </IconButton>
          </div>
          <textarea
            aria-label="What the critic reads"
            rows={2}
            value={rubric.text}
            maxLength={2000}
            className="rounded-md border border-line-strong bg-surface px-2 py-1 placeholder:text-faint"
            placeholder="One thing that a better answer does."
            onChange={(event) => change(place, { text: event.target.value })}
          />
        </fieldset>
      ))}
      <div className="flex flex-wrap items-center gap-2">
        <Button onClick={() => setDraft([...draft, EMPTY])}>
          <Plus /> Add a rubric
        </Button>
        <div className="flex-1" />
        {fault && <p role="status" className="text-sm text-muted">{fault}</p>}
        <Button onClick={onCancel}>Cancel</Button>
        <Button look="primary" type="submit" disabled={fault !== null || save.isPending || !isChanged(draft, newest)}>
          Save as version {version + 1}
        </Button>
      </div>
      {save.error && <ProblemNotice error={save.error} />}
    </form>
  );
}
