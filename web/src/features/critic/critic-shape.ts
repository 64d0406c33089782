import type { MetricKeyOut, SeriesOut } from "@/api";
import { stitch } from "@/features/metrics/merge";

/** What a critic is worth, as its page shows it. Pure. */

export const CRITIC = "rl/critic/";
export const hasCritic = (keys: readonly MetricKeyOut[], stageId: string | undefined): boolean => keys.some((one) => one.stage_id === stageId && one.key.startsWith(CRITIC));

export type Figure = { readonly key: string; readonly title: string; readonly about: string; readonly isShare: boolean };

export const FIGURES: readonly Figure[] = [
  { key: "accuracy", title: "Accuracy", about: "Share of held-out pairs of verified answers that it puts right; a verdict that turns with the order counts half", isShare: true },
  { key: "swap_inconsistency", title: "Swap inconsistency", about: "Share of them whose verdict turns when the two change places", isShare: true },
  { key: "cycles", title: "Cycles", about: "Of triples of answers that were all decided, those that go round: A over B, B over C, C over A", isShare: true },
  { key: "position_bias", title: "Position bias", about: "Share of verdicts for whatever stands first, less one half", isShare: false },
  { key: "length_bias", title: "Length bias", about: "Accuracy where the right answer is the longer one, less accuracy where it is the shorter one", isShare: false },
  { key: "overconfidence", title: "Overconfidence", about: "Probability of the letter that it says, less how often that is right", isShare: false },
];

export type Spell = { readonly from: number; readonly to: number; readonly isFrozen: boolean };

/** Iterations in a row with rewards that were given, or frozen; attempts that were given up count nowhere. */
export function spellsOf(curves: readonly SeriesOut[]): Spell[] {
  const { curve } = stitch(curves);
  const spells: Spell[] = [];
  curve?.steps.forEach((step, i) => {
    const isFrozen = (curve.means[i] ?? 0) >= 0.5;
    const last = spells.at(-1);
    if (last?.isFrozen === isFrozen) spells[spells.length - 1] = { ...last, to: step };
    else spells.push({ from: last ? last.to + 1 : step, to: step, isFrozen });
  });
  return spells;
}
