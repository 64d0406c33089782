import { strokeOf } from "@/features/metrics/palette";
import { cn } from "@/lib/cn";
import { whole } from "@/lib/format";
import { type Json, numberOf, textOf } from "@/lib/unknown";

import { Conversation, Facts } from "./conversation-view";
import { componentsOf, type Piece, piecesOf, versionsOf } from "./rollout-shape";

/** What a policy did in an environment: what it was worth, which version of it drew which tokens, what was said and called. */
export function RolloutView({ row }: { row: Json }) {
  const versions = versionsOf(row);
  const reward = numberOf(row.reward);
  return (
    <div className="flex flex-col gap-5 px-4 py-3">
      <section aria-label="Reward" className="flex flex-col gap-1.5">
        <h3 className="flex items-baseline gap-2 font-medium">
          Reward <span className="text-xl font-semibold tracking-tight">{reward === null ? "none" : reward.toFixed(2)}</span>
          {reward === null && <span className="text-sm font-normal text-muted">It failed, and counts nowhere.</span>}
        </h3>
        <Components components={componentsOf(row)} />
        <Facts
          facts={[
            ["Found", textOf(row.detail)],
            ["Tokens of the policy", numberOf(row.policy_tokens) === null ? "" : whole(numberOf(row.policy_tokens) ?? 0)],
          ]}
        />
      </section>
      <Segments pieces={piecesOf(row)} versions={versions} />
      <Conversation row={row} />
    </div>
  );
}

function Components({ components }: { components: readonly (readonly [string, number])[] }) {
  const largest = Math.max(1, ...components.map(([, value]) => Math.abs(value)));
  return (
    <ul className="flex max-w-xl flex-col gap-0.5 text-sm">
      {components.map(([name, value]) => (
        <li key={name} className="grid grid-cols-[minmax(6rem,11rem)_minmax(3rem,1fr)_4rem] gap-x-2.5">
          <span className="truncate">{name.replaceAll("_", " ")}</span>
          <span className="h-2 w-full self-center rounded-xs bg-line" aria-hidden>
            <span className={cn("block h-full rounded-xs", value < 0 ? "bg-bad" : "bg-ok")} style={{ width: `${(100 * Math.abs(value)) / largest}%` }} />
          </span>
          <span className="text-right">{value.toFixed(2)}</span>
        </li>
      ))}
    </ul>
  );
}

/** As tokens: what the policy read, and what it drew, coloured by the version that drew it. */
function Segments({ pieces, versions }: { pieces: readonly Piece[]; versions: readonly number[] }) {
  const colorOf = (version: number): string => strokeOf(versions.indexOf(version)).color;
  return (
    <section aria-label="Tokens" className="flex flex-col gap-1.5">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1">
        <h3 className="font-medium">Tokens</h3>
        <ul aria-label="Policies" className="flex flex-wrap gap-x-3 text-sm text-muted">
          {versions.map((version) => (
            <li key={version} className="inline-flex items-center gap-1.5">
              <span aria-hidden className="size-2.5 rounded-xs" style={{ background: colorOf(version) }} />
              policy {version}
            </li>
          ))}
        </ul>
      </div>
      <p className="max-w-4xl rounded-lg border border-line bg-surface px-3 py-2 font-mono text-sm break-words whitespace-pre-wrap">
        {pieces.map((piece, i) => (
          <span
            key={i}
            title={toldOf(piece)}
            data-version={piece.version ?? undefined}
            className={cn(piece.version === null && "text-muted", piece.source === "environment" && "border-b border-dotted border-line")}
            style={piece.version === null ? undefined : { background: `color-mix(in oklch, ${colorOf(piece.version)} 22%, transparent)`, boxShadow: `inset 0 -2px ${colorOf(piece.version)}` }}
          >
            {piece.text}
          </span>
        ))}
      </p>
    </section>
  );
}

function toldOf(piece: Piece): string {
  const tokens = `${piece.tokens} tokens`;
  if (piece.version === null) return `${piece.source === "prompt" ? "Prompt" : "Environment"}: ${tokens}, read and never trained on`;
  const logprob = piece.logprob === null ? "" : `, mean log-probability ${piece.logprob.toFixed(3)}`;
  return `Policy ${piece.version}: ${tokens} at temperature ${piece.temperature ?? "?"}${logprob}; ended by ${piece.ending || "?"}`;
}
