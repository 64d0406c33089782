import { Link } from "@tanstack/react-router";
import { useMemo } from "react";

import type { RunOut, StageOut } from "@/api";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Tooltip } from "@/components/ui/tooltip";
import { cn } from "@/lib/cn";
import { figure, percent } from "@/lib/format";
import { type Json, numberOf, recordOf, textOf } from "@/lib/unknown";

import { CurveControls } from "../metrics/controls";
import { PANEL_PIXELS } from "../metrics/panel";
import { panelsOf } from "../metrics/panels";
import { useCurves, useMetricKeys } from "../metrics/queries";
import { StagePanel } from "../metrics/stage-panel";
import { useCurveView } from "../metrics/view";
import { WhenVisible } from "@/components/charts/when-visible";

import { CRITIC, FIGURES, type Spell, spellsOf } from "./critic-shape";

/** What the critic of a stage is worth, and when its rewards were given. */
export default function CriticTab({ run, stage }: { run: RunOut; stage: StageOut }) {
  const view = useCurveView();
  const keys = useMetricKeys(run.id);
  const mine = (keys.data?.items ?? []).filter((one) => one.stage_id === stage.id && one.key.startsWith(CRITIC));
  const frozenKeys = useMemo(() => [`${CRITIC}frozen`], []);
  const frozen = useCurves({ runId: run.id, stageId: stage.id, newestAttempt: stage.attempts.at(-1)?.id, keys: frozenKeys, steps: null });
  const spells = useMemo(() => spellsOf(frozen.data ?? []), [frozen.data]);
  if (keys.error && !keys.data) return <div className="p-4"><ProblemNotice error={keys.error} /></div>;
  if (!keys.data) return <SkeletonLines count={8} className="p-4" />;
  const last = new Map(mine.map((one) => [one.key.slice(CRITIC.length), one.last_value]));
  const config = recordOf(recordOf(stage.config.rl).critic);
  return (
    <div className="flex flex-col gap-3 p-4">
      <section aria-label="Rubric rewards" className="rounded-lg border border-line bg-surface px-3 py-2.5">
        <header className="flex flex-wrap items-baseline gap-x-4 gap-y-1">
          <h2 className="font-medium">Rubric rewards</h2>
          <p className={cn("text-sm", spells.at(-1)?.isFrozen ? "text-warn" : "text-muted")}>{standing(spells.at(-1))}</p>
          <div className="flex-1" />
          <Link to="/rubrics" search={{ name: textOf(config.rubrics) || "general" }} className="text-sm text-accent">
            rubrics {textOf(config.rubrics) || "general"}
          </Link>
          <Link to="/data" search={{ run: run.id }} className="text-sm text-accent">
            rollouts
          </Link>
        </header>
        <Strip spells={spells} />
      </section>
      <ul aria-label="What the critic is worth" className="grid grid-cols-[repeat(auto-fill,minmax(10rem,1fr))] gap-3">
        {FIGURES.map(({ key, title, about, isShare }) => {
          const value = last.get(key) ?? null;
          return (
            <li key={key} className="rounded-lg border border-line bg-surface px-3 py-2">
              <Tooltip says={about}>
                <h3 className="text-sm text-muted">{title}</h3>
              </Tooltip>
              <p className="text-xl font-semibold tracking-tight">{value === null ? "–" : isShare ? percent(value) : figure(value)}</p>
              <p className="text-sm text-faint">{bound(key, recordOf(config.gate))}</p>
            </li>
          );
        })}
      </ul>
      <CurveControls view={view} />
      <div className="grid grid-cols-[repeat(auto-fill,minmax(24rem,1fr))] gap-3 max-sm:grid-cols-1">
        {panelsOf(mine.map((one) => one.key)).map((panel) => (
          <WhenVisible key={panel.id} height={PANEL_PIXELS} isWide={view.of(panel.id).large ?? false}>
            <StagePanel panel={panel} run={run} stage={stage} view={view} />
          </WhenVisible>
        ))}
      </div>
    </div>
  );
}

function standing(spell: Spell | undefined): string {
  if (!spell) return "Nothing is known of them yet.";
  return spell.isFrozen ? `Frozen since iteration ${spell.from}: the critic is not known to be right.` : `Given since iteration ${spell.from}.`;
}

function bound(key: string, gate: Json): string {
  if (gate.enabled === false) return "no gate";
  if (key === "accuracy") return `${percent(numberOf(gate.accuracy) ?? 0.6)} at least`;
  if (key === "swap_inconsistency") return `${percent(1 - (numberOf(gate.consistency) ?? 0.6))} at most`;
  return "";
}

/** Iterations from left to right: frozen or given. */
function Strip({ spells }: { spells: readonly Spell[] }) {
  const [first, last] = [spells[0], spells.at(-1)];
  if (!first || !last) return null;
  return (
    <>
      <ol aria-label="Frozen and given" className="mt-2 flex h-5 gap-px overflow-hidden rounded-sm">
        {spells.map((spell) => {
          const told = `${spell.isFrozen ? "Frozen" : "Given"}, ${spell.from === spell.to ? `iteration ${spell.to}` : `iterations ${spell.from} to ${spell.to}`}`;
          return (
            <li key={spell.from} title={told} style={{ flexGrow: spell.to - spell.from + 1 }} className={cn("min-w-px", spell.isFrozen ? "bg-warn/50" : "bg-ok/60")}>
              <span className="sr-only">{told}</span>
            </li>
          );
        })}
      </ol>
      <div aria-hidden className="mt-0.5 flex justify-between text-xs text-muted">
        <span>iteration {first.from}</span>
        <span>{last.to}</span>
      </div>
    </>
  );
}
