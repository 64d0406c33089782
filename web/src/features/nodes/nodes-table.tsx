import { Link } from "@tanstack/react-router";
import { ChevronRight } from "lucide-react";
import { Fragment } from "react";

import type { NodeOut } from "@/api";
import { Button } from "@/components/ui/button";
import { Cell, Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";
import { ago, since, span } from "@/lib/format";
import { useNow } from "@/lib/now";

import { GpuCells } from "./gpu-cells";
import { NodeDetail } from "./node-detail";
import { NodeStateLabel } from "./node-state";
import { canDrain, canReturn, LEMON_SCORE, rankRanges } from "./nodes";
import type { Verb } from "./queries";

const COLUMNS = 7;
const ATTEMPTS_SHOWN = 3;

type Props = {
  nodes: readonly NodeOut[];
  /** Of the pool's topology, the widest first. */
  levels: readonly string[];
  /** Whose details are shown. */
  open: string | undefined;
  onOpen: (name: string | undefined) => void;
  cursor: string | null;
  /** Absent for those who may not. */
  onSteer: ((node: NodeOut, verb: Verb) => void) | undefined;
};

/** Nodes with what runs on each and what speaks against it; a row opens to all that is known. */
export function NodesTable({ nodes, levels, open, onOpen, cursor, onSteer }: Props) {
  return (
    <Table label="Nodes">
      <thead>
        <tr>
          <Head>Node</Head>
          <Head>State</Head>
          <Head>GPUs</Head>
          <Head>Runs on it</Head>
          <Head right>Score</Head>
          <Head right>Last heard</Head>
          <Head className="w-px">
            <span className="sr-only">Actions</span>
          </Head>
        </tr>
      </thead>
      <tbody>
        {nodes.map((node) => {
          const isOpen = node.name === open;
          return (
            <Fragment key={node.name}>
              <Row node={node} levels={levels} isOpen={isOpen} onOpen={() => onOpen(isOpen ? undefined : node.name)} isCurrent={node.name === cursor} onSteer={onSteer} />
              {isOpen && (
                <tr>
                  <td colSpan={COLUMNS} className="border-b border-line bg-sunken px-4 py-3">
                    <NodeDetail node={node} levels={levels} />
                  </td>
                </tr>
              )}
            </Fragment>
          );
        })}
      </tbody>
    </Table>
  );
}

type RowProps = { node: NodeOut; levels: readonly string[]; isOpen: boolean; onOpen: () => void; isCurrent: boolean; onSteer: Props["onSteer"] };

function Row({ node, levels, isOpen, onOpen, isCurrent, onSteer }: RowProps) {
  const now = useNow();
  const isLemon = node.lemon_score >= LEMON_SCORE;
  return (
    <tr aria-current={isCurrent ? "true" : undefined} className={cn("hover:bg-hover", isCurrent && "outline-2 -outline-offset-2 outline-accent")}>
      <Cell className="whitespace-nowrap">
        <button type="button" aria-expanded={isOpen} onClick={onOpen} className="inline-flex items-center gap-1.5 font-medium">
          <ChevronRight aria-hidden className={cn("size-3.5 text-faint transition-transform", isOpen && "rotate-90")} />
          {node.name}
        </button>
        <p className="pl-5 text-sm text-faint">{levels.map((level) => node.topology[level]).filter((value) => value && value !== node.name).join(" / ")}</p>
      </Cell>
      <Cell className="max-w-96 min-w-44">
        <p className="flex items-center gap-2">
          <NodeStateLabel state={node.state} />
          {node.state !== "ready" && <span className="text-sm whitespace-nowrap text-faint">for {span(since(node.since, now))}</span>}
        </p>
        {(node.reason || node.drain) && <p className="text-sm text-muted">{node.reason || `${node.drain?.by} asked for a drain: ${node.drain?.reason}`}</p>}
      </Cell>
      <Cell>
        <GpuCells node={node} />
      </Cell>
      <Cell>
        <AttemptLinks node={node} />
      </Cell>
      <Cell right className={cn(isLemon ? "font-medium text-bad" : node.lemon_score > 0 ? "text-warn" : "text-faint")}>
        <span title={node.lemon_score > 0 ? "Its faults, each worth half after a week" : "No faults"}>{node.lemon_score > 0 ? node.lemon_score.toFixed(1) : "–"}</span>
      </Cell>
      <Cell right className="text-muted">{node.heartbeat_at ? ago(node.heartbeat_at, now) : "never"}</Cell>
      <Cell>
        {onSteer && (
          <span className="flex justify-end">
            {canReturn(node) && (
              <Button look="ghost" onClick={() => onSteer(node, "return")}>
                Return
              </Button>
            )}
            {canDrain(node) && (
              <Button look="ghost" onClick={() => onSteer(node, "drain")}>
                Drain
              </Button>
            )}
          </span>
        )}
      </Cell>
    </tr>
  );
}

function AttemptLinks({ node }: { node: NodeOut }) {
  const more = node.attempts.length - ATTEMPTS_SHOWN;
  if (node.attempts.length + node.hidden_attempts === 0) return <span className="text-faint">–</span>;
  return (
    <ul className="text-sm">
      {node.attempts.slice(0, ATTEMPTS_SHOWN).map((attempt) => (
        <li key={attempt.attempt_id} className="whitespace-nowrap">
          <Link to="/runs/$runId" params={{ runId: attempt.run_id }} search={{ stage: attempt.stage_id, tab: "attempts" }} className="font-mono text-accent hover:underline">
            {attempt.run_id}
          </Link>{" "}
          {attempt.stage_id} <span className="text-muted">{attempt.ranks.length === 1 ? "rank" : "ranks"} {rankRanges(attempt.ranks)}</span>
        </li>
      ))}
      {more > 0 && <li className="text-faint">and {more} more</li>}
      {node.hidden_attempts > 0 && <li className="text-faint">{node.hidden_attempts} of other projects</li>}
    </ul>
  );
}
