import type { RunOut } from "@/api";
import { Button } from "@/components/ui/button";
import { Code } from "@/components/ui/code";
import { Consequences, Dialog, DialogActions } from "@/components/ui/dialog";

import type { Steering } from "./queries";
import { retriedStages } from "./states";

type Props = { run: RunOut; open: boolean; onClose: () => void; steering: Steering };

/** What cancelling does, before it is done. */
export function CancelDialog({ run, open, onClose, steering }: Props) {
  const running = run.detail.filter((stage) => stage.state === "running").map((stage) => stage.id);
  const later = run.detail.filter((stage) => stage.state === "waiting" || stage.state === "pending").map((stage) => stage.id);
  return (
    <Dialog title={`Cancel ${run.name}?`} open={open} onClose={onClose}>
      <Consequences>
        {running.length > 0 && (
          <li>
            {names(running)} {running.length === 1 ? "is" : "are"} asked to save a checkpoint and stop; after a grace period {running.length === 1 ? "it is" : "they are"} ended.
          </li>
        )}
        {later.length > 0 && <li>{names(later)} will not start.</li>}
        <li>Metrics, logs and checkpoints stay. The run can be retried, and its checkpoints branched.</li>
      </Consequences>
      <Code text={`abruzzi runs stop ${run.id}`} />
      <DialogActions>
        <Button look="ghost" data-first onClick={onClose}>
          Keep it running
        </Button>
        <Button
          look="danger"
          onClick={() => {
            onClose();
            steering.cancel.mutate();
          }}
        >
          Cancel the run
        </Button>
      </DialogActions>
    </Dialog>
  );
}

/** What a retry runs again, and what it keeps. */
export function RetryDialog({ run, from, open, onClose, steering }: Props & { from: string | null }) {
  const again = retriedStages(run.detail, from);
  const kept = run.detail.map((stage) => stage.id).filter((id) => !again.includes(id));
  return (
    <Dialog title={from ? `Retry from ${from}?` : "Retry this run?"} open={open} onClose={onClose}>
      <Consequences>
        <li>
          {names(again)} {again.length === 1 ? "runs" : "run"} again, with the recipe as it is. A stage that saves goes on from its newest verified checkpoint.
        </li>
        {kept.length > 0 && (
          <li>
            {names(kept)} {kept.length === 1 ? "is" : "are"} kept as {kept.length === 1 ? "it is" : "they are"}.
          </li>
        )}
        <li>Earlier attempts stay in the record.</li>
      </Consequences>
      <Code text={`abruzzi runs retry ${run.id}${from ? ` --stage ${from}` : ""}`} />
      <DialogActions>
        <Button look="ghost" data-first onClick={onClose}>
          Leave it
        </Button>
        <Button
          look="primary"
          onClick={() => {
            onClose();
            steering.retry.mutate(from);
          }}
        >
          Retry
        </Button>
      </DialogActions>
    </Dialog>
  );
}

function names(ids: readonly string[]): string {
  return ids.length < 2 ? (ids[0] ?? "") : `${ids.slice(0, -1).join(", ")} and ${ids.at(-1) ?? ""}`;
}
