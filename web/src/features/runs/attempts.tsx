import { Link } from "@tanstack/react-router";

import type { AttemptOut, RunOut } from "@/api";
import { Empty } from "@/components/ui/notice";
import { Cell, Head, Table } from "@/components/ui/table";
import { ago, span } from "@/lib/format";
import { useNow } from "@/lib/now";

import { StateLabel } from "./state-mark";
import { tookSeconds } from "./states";

const CODES: Readonly<Record<number, string>> = { 0: "done", 64: "user error", 65: "bad data", 75: "try again", 76: "diverged", 137: "killed", 143: "stopped after saving" };

/** Every try of every stage: how it ended, with which code, and from which checkpoint it went on. */
export function Attempts({ run }: { run: RunOut }) {
  const attempts = run.detail.flatMap((stage) => stage.attempts).sort((a, b) => b.epoch - a.epoch);
  if (attempts.length === 0) return <Empty title="No attempt yet" command={`abruzzi runs why ${run.id}`} />;
  return (
    <Table label="Attempts">
      <thead>
        <tr>
          <Head>Stage</Head>
          <Head right>Attempt</Head>
          <Head right>Epoch</Head>
          <Head>State</Head>
          <Head>Cause</Head>
          <Head right>Exit code</Head>
          <Head>Reason</Head>
          <Head right>Took</Head>
          <Head right>Started</Head>
          <Head>Log</Head>
        </tr>
      </thead>
      <tbody>
        {attempts.map((attempt) => (
          <Row key={attempt.id} attempt={attempt} />
        ))}
      </tbody>
    </Table>
  );
}

function Row({ attempt }: { attempt: AttemptOut }) {
  const now = useNow();
  const took = tookSeconds(attempt, now);
  const code = attempt.exit_code;
  return (
    <tr>
      <Cell className="font-medium">{attempt.stage_id}</Cell>
      <Cell right>{attempt.number}</Cell>
      <Cell right className="text-muted">{attempt.epoch}</Cell>
      <Cell>
        <StateLabel state={attempt.state} />
      </Cell>
      <Cell className="text-muted">{attempt.cause?.replaceAll("_", " ") ?? "–"}</Cell>
      <Cell right>
        {code === null ? <span className="text-faint">–</span> : <span title={CODES[code]}>{code}{CODES[code] && <span className="ml-1.5 text-muted">{CODES[code]}</span>}</span>}
      </Cell>
      <Cell className="max-w-md min-w-40 text-muted">
        {attempt.reason}
        {attempt.world_size !== null && <span className="block">on {attempt.world_size} ranks, fewer than its stage asks for</span>}
        {attempt.resumed_from && <span className="block">went on from checkpoint <span className="font-mono text-sm">{attempt.resumed_from}</span></span>}
      </Cell>
      <Cell right className="text-muted">{took === null ? "–" : span(took)}</Cell>
      <Cell right className="text-muted">{attempt.started_at ? ago(attempt.started_at, now) : "–"}</Cell>
      <Cell>
        <Link from="/runs/$runId" search={(old) => ({ ...old, tab: "logs", stage: attempt.stage_id, attempt: attempt.id, rank: undefined, line: undefined })} className="text-accent hover:underline">
          Log
        </Link>
      </Cell>
    </tr>
  );
}
