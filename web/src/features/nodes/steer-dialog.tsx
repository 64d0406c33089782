import { useState } from "react";

import type { NodeOut } from "@/api";
import { Button } from "@/components/ui/button";
import { Code } from "@/components/ui/code";
import { Consequences, Dialog, DialogActions } from "@/components/ui/dialog";
import { Field, Input } from "@/components/ui/field";

import { LEMON_SCORE } from "./nodes";
import { useSteerNode, type Verb } from "./queries";

const REASON_LENGTH = 200;

/** What draining or returning a node does, before it is done; and why somebody does it. */
export function SteerDialog({ node, verb, onClose }: { node: NodeOut; verb: Verb; onClose: () => void }) {
  const [reason, setReason] = useState("");
  const steer = useSteerNode(verb);
  const said = reason.trim();
  const isDrain = verb === "drain";
  return (
    <Dialog title={isDrain ? `Drain ${node.name}?` : `Return ${node.name}?`} open onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (said) steer.mutate({ name: node.name, reason: said }, { onSuccess: onClose });
        }}
      >
        <Consequences>{isDrain ? <DrainConsequences node={node} /> : <ReturnConsequences node={node} />}</Consequences>
        <Field label="Reason" htmlFor="reason" hint="For the audit log, and for whoever wonders.">
          <Input id="reason" data-first value={reason} maxLength={REASON_LENGTH} required placeholder={isDrain ? "such as: fan is loud" : "such as: new fan"} onChange={(event) => setReason(event.target.value)} />
        </Field>
        <Code className="mt-3" text={`abruzzi nodes ${verb} ${node.name} --reason ${JSON.stringify(said || "…")}`} />
        <DialogActions>
          <Button look="ghost" onClick={onClose}>
            Leave it
          </Button>
          <Button type="submit" look={isDrain ? "danger" : "primary"} disabled={!said || steer.isPending}>
            {isDrain ? "Drain" : "Return"}
          </Button>
        </DialogActions>
      </form>
    </Dialog>
  );
}

function DrainConsequences({ node }: { node: NodeOut }) {
  const count = node.attempts.length + node.hidden_attempts;
  return (
    <>
      <li>Nothing new is placed there until somebody returns it.</li>
      {count > 0 ? (
        <li>
          {count === 1 ? "The attempt on it saves" : `The ${count} attempts on it save`} and {count === 1 ? "goes" : "go"} on elsewhere; that costs no try.
        </li>
      ) : (
        <li>No attempt is on it.</li>
      )}
    </>
  );
}

function ReturnConsequences({ node }: { node: NodeOut }) {
  return (
    <>
      <li>Stages are placed there again.</li>
      {node.faults.length > 0 && <li>Its faults so far do not count any more{node.lemon_score >= LEMON_SCORE ? ", though they made it a lemon" : ""}; they stay in its record.</li>}
      {node.drain && (
        <li>
          {node.drain.by} drained it: {node.drain.reason}
        </li>
      )}
    </>
  );
}
