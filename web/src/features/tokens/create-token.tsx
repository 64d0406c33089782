import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";

import { type Role, tokensCreate } from "@/api";
import { Button } from "@/components/ui/button";
import { Code } from "@/components/ui/code";
import { Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input, Select } from "@/components/ui/field";
import { ProblemNotice } from "@/components/ui/notice";

const ROLES: readonly (readonly [Role, string])[] = [
  ["viewer", "reads"],
  ["member", "reads and submits"],
  ["maintainer", "reads, submits and steers all runs"],
  ["admin", "does everything, tokens and projects included"],
];

/** A new token; its secret is shown once and is then gone for good. */
export function CreateToken({ open, onClose }: { open: boolean; onClose: () => void }) {
  const queryClient = useQueryClient();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("member");
  const [days, setDays] = useState(30);
  const create = useMutation({
    mutationFn: async () => (await tokensCreate({ body: { name: name.trim(), role, days }, throwOnError: true })).data,
    onSuccess: () => queryClient.invalidateQueries({ queryKey: [{ _id: "tokensList" }] }),
  });
  const close = () => {
    create.reset();
    setName("");
    onClose();
  };
  if (create.data) {
    return (
      <Dialog title="Copy it now" about="This is the only time that it is shown. Only its hash is kept." open={open} onClose={close}>
        <Code text={create.data.token} />
        <p className="mt-3 text-muted">In a terminal or in CI:</p>
        <Code className="mt-1" text={`export ABRUZZI_URL=${location.origin}\nexport ABRUZZI_TOKEN=…`} />
        <DialogActions>
          <Button look="primary" data-first onClick={close}>
            I have it
          </Button>
        </DialogActions>
      </Dialog>
    );
  }
  return (
    <Dialog title="New token" about="For a person, a script or CI." open={open} onClose={close}>
      <form
        className="flex flex-col gap-3"
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate();
        }}
      >
        <Field label="Name" htmlFor="token-name" hint="Who or what uses it; the audit log names it.">
          <Input id="token-name" data-first value={name} required maxLength={80} placeholder="ci" onChange={(event) => setName(event.target.value)} />
        </Field>
        <Field label="Role" htmlFor="token-role" hint={`It ${ROLES.find(([id]) => id === role)?.[1] ?? ""}.`}>
          <Select label="Role" id="token-role" value={role} onChange={(event) => setRole(event.target.value as Role)}>
            {ROLES.map(([id]) => (
              <option key={id}>{id}</option>
            ))}
          </Select>
        </Field>
        <Field label="Days until it expires" htmlFor="token-days">
          <Input id="token-days" type="number" min={1} max={366} value={days} required onChange={(event) => setDays(event.target.valueAsNumber)} />
        </Field>
        {create.error && <ProblemNotice error={create.error} />}
        <DialogActions>
          <Button look="ghost" onClick={close}>
            Leave it
          </Button>
          <Button type="submit" look="primary" disabled={create.isPending || !name.trim()}>
            Create
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}
