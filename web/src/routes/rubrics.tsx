import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { Pencil, Plus } from "lucide-react";
import { useState } from "react";

import type { RubricSetOut } from "@/api";
import { rubricsGetOptions, rubricsListOptions } from "@/api/@tanstack/react-query.gen";
import { Button } from "@/components/ui/button";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input, Select } from "@/components/ui/field";
import { ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { SET_NAME, versionsOf } from "@/features/rubrics/draft";
import { RubricEditor } from "@/features/rubrics/rubric-editor";
import { RubricList } from "@/features/rubrics/rubric-list";
import { usePageTitle } from "@/lib/page-title";

const route = getRouteApi("/rubrics");

/** What was there when somebody began: what others write meanwhile must neither throw a draft away nor be overwritten by it. */
type Editing = { name: string; from: RubricSetOut | undefined; newest: RubricSetOut | undefined };

/** What critics weigh answers by: sets by name, all their versions, and an editor that makes the next one. */
export function RubricsPage() {
  usePageTitle("Rubrics");
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const [editing, setEditing] = useState<Editing | null>(null);
  const [isNaming, setNaming] = useState(false);
  const list = useQuery(rubricsListOptions());
  const sets = list.data?.items ?? [];
  const isNewSet = editing !== null && editing.newest === undefined;
  const newest = isNewSet ? undefined : (sets.find((one) => one.name === search.name) ?? sets[0]);
  const name = newest?.name ?? "";
  const version = Math.min(search.version ?? newest?.version ?? 1, newest?.version ?? 1);
  const older = useQuery({ ...rubricsGetOptions({ path: { rubrics_name: name }, query: { version } }), enabled: newest !== undefined && version !== newest.version });
  const shown = version === newest?.version ? newest : older.data;
  const show = (next: { name?: string | undefined; version?: number | undefined }) => {
    setEditing(null);
    void navigate({ search: next, replace: true });
  };
  const edit = () => {
    if (newest && shown) setEditing({ name, from: shown, newest });
  };
  return (
    <div className="flex flex-col pb-8">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg leading-7 font-semibold">Rubrics</h1>
        {newest && (
          <>
            <Select label="Set" value={newest.name} onChange={(event) => show({ name: event.target.value })}>
              {sets.map((one) => (
                <option key={one.name}>{one.name}</option>
              ))}
            </Select>
            <Select label="Version" value={version} onChange={(event) => show({ name: newest.name, version: Number(event.target.value) })}>
              {versionsOf(newest.version).map((one) => (
                <option key={one} value={one}>
                  version {one}
                  {one === newest.version ? ", the newest" : ""}
                </option>
              ))}
            </Select>
            {shown && <span className="text-sm text-muted">{shown.at ? `by ${shown.by}, ${new Date(shown.at).toLocaleString()}` : "shipped"}</span>}
          </>
        )}
        <div className="flex-1" />
        <Stale error={list.data ? list.error : null} />
        {editing === null && (
          <>
            <Button onClick={() => setNaming(true)}>
              <Plus /> New set
            </Button>
            <Button look="primary" disabled={!shown} onClick={edit}>
              <Pencil /> Edit
            </Button>
          </>
        )}
      </div>
      {(list.error && !list.data) || older.error ? <div className="p-4"><ProblemNotice error={older.error ?? list.error} /></div> : null}
      {!list.data && !list.error && <SkeletonLines count={6} className="p-4" />}
      {editing === null && shown && (
        <>
          <p className="px-4 py-2 text-sm text-muted">
            A stage takes the newest version when it begins (<code>rubrics = &quot;{name}&quot;</code> in <code>[stage.rl.critic]</code>) and keeps it.
          </p>
          <RubricList rubrics={shown.rubrics} />
        </>
      )}
      {editing !== null && (
        <RubricEditor key={editing.name} {...editing} onCancel={() => setEditing(null)} onDone={(made) => show({ name: editing.name, version: made })} />
      )}
      <Naming open={isNaming} taken={sets.map((one) => one.name)} onClose={() => setNaming(false)} onName={(given) => setEditing({ name: given, from: undefined, newest: undefined })} />
    </div>
  );
}

function Naming({ open, taken, onClose, onName }: { open: boolean; taken: readonly string[]; onClose: () => void; onName: (name: string) => void }) {
  const [name, setName] = useState("");
  return (
    <Dialog title="New rubrics" about="For a kind of task, or a house's style." open={open} onClose={onClose}>
      <form
        className="flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          onName(name);
          onClose();
        }}
      >
        <Field label="Name" htmlFor="rubrics-name" hint="Small letters, digits and -; a recipe names it.">
          <Input id="rubrics-name" data-first value={name} required placeholder="support" onChange={(event) => setName(event.target.value)} />
        </Field>
        <DialogActions>
          <Button onClick={onClose}>Cancel</Button>
          <Button look="primary" type="submit" disabled={!SET_NAME.test(name) || taken.includes(name)}>
            Write them
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
