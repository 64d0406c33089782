import { bytes, figure, percent, span, whole } from "@/lib/format";
import { recordOf } from "@/lib/unknown";

import { type Layout, number } from "./layout-shape";

/** What the step comes to, in a dozen figures. */
export function LayoutFacts({ layout }: { layout: Layout }) {
  return (
    <dl className="grid grid-cols-[repeat(auto-fill,minmax(13rem,1fr))] max-sm:grid-cols-2 overflow-hidden rounded-lg border border-line bg-surface">
      {factsOf(layout).map(([name, value, more]) => (
        <div key={name} className="px-3 py-2 shadow-[0_0_0_1px_var(--line)]">
          <dt className="text-sm text-muted">{name}</dt>
          <dd className="text-lg font-semibold tabular-nums">{value}</dd>
          <dd className="text-sm text-muted">{more}</dd>
        </div>
      ))}
    </dl>
  );
}

function factsOf({ raw, ep, byRank }: Layout): [name: string, value: string, more: string][] {
  const step = recordOf(raw.step);
  const total = recordOf(raw.total);
  const kept = recordOf(raw.activations);
  const optimizer = recordOf(step.optimizer);
  const saves = recordOf(step.checkpoint);
  const sent = recordOf(step.exchange);
  const kib = (value: unknown): string => `${Math.round(number(value) / 1024)} KiB`;
  const facts: [string, string, string][] = [
    ["Step", `${figure(number(step.seconds))} s`, `${whole(number(step.tokens_per_second_per_rank))} tokens/s a rank`],
    ["MFU", percent(number(step.mfu)), "of the device's peak"],
    ["Idle", percent(number(step.idle)), `bubble ${percent(number(step.bubble))} if all stages were equal`],
  ];
  if (raw.total) {
    const money = total.cost === null ? "" : `, cost ${whole(number(total.cost))}`;
    facts.unshift(["Time", span(number(total.seconds)), `${whole(number(total.gpu_hours))} GPU-hours${money}`]);
  }
  facts.push(
    ["Activations", kib(kept.bytes_per_token_layer), `a token and layer; ${kib(kept.bytes_per_token_layer_kept)} kept whole`],
    ["Optimizer", `${figure(1000 * number(optimizer.seconds))} ms`, `Newton-Schulz ${figure(1000 * number(optimizer.newton_schulz))} ms; on the ${byRank[0]?.optimizerOn ?? ""}`],
  );
  if (number(kept.offload_bytes_per_second) > 0) facts.push(["Offload", `${bytes(number(kept.offload_bytes_per_second))}/s`, "each way, while pairs of forward and backward run"]);
  if (ep > 1) facts.push(["All-to-all", kib(sent.bytes), `a token, layer and way; fills ${percent(number(step.all_to_all_share))} of what hides it`]);
  facts.push(["Checkpoint", bytes(number(saves.bytes)), `training waits ${figure(number(saves.stall_seconds))} s, written in ${figure(number(saves.write_seconds))} s`]);
  return facts;
}
