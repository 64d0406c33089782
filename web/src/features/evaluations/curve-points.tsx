import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useMemo } from "react";

import { evaluationsListOptions } from "@/api/@tanstack/react-query.gen";
import { strokeOf } from "@/features/metrics/palette";
import { whole } from "@/lib/format";

import { hundredths, intervalText } from "./board-shape";
import { pointsOf, suiteLabel, type SuitePoints } from "./points-shape";

const LOOK_MILLISECONDS = 15_000;

/** Evaluations of the stage's checkpoints, whoever made them; looked for again now and then, since they come after the training. */
export function useCurvePoints(runId: string, stageId: string): SuitePoints[] {
  const { data } = useQuery({ ...evaluationsListOptions({ query: { of_run: runId, limit: 200 } }), refetchInterval: LOOK_MILLISECONDS });
  return useMemo(() => pointsOf(data?.items ?? [], stageId), [data, stageId]);
}

/** The curve itself has the first colour. */
export const colorOf = (index: number): string => strokeOf(index + 1).color;

/** What the points of a chart are, each of them a way to its answers. */
export function PointsLegend({ suites }: { suites: readonly SuitePoints[] }) {
  return (
    <div role="group" aria-label="Evaluations of its checkpoints" className="border-t border-line px-3 py-1.5 text-sm">
      <p className="text-muted">Suites by its checkpoints, right scale, with 95 % intervals:</p>
      <ul>
        {suites.map((one, i) => (
          <li key={suiteLabel(one)} className="flex flex-wrap items-baseline gap-x-2.5">
            <span className="inline-flex items-baseline gap-1.5 font-medium">
              <svg width="8" height="8" aria-hidden>
                <circle cx="4" cy="4" r="3.5" fill={colorOf(i)} />
              </svg>
              {suiteLabel(one)}
            </span>
            {one.points.map(({ id, step, figure }) => (
              <Link key={id} to="/evaluations/$evaluationId" params={{ evaluationId: id }} title={`95 % interval ${intervalText(figure)}, n ${figure.items}`} className="whitespace-nowrap text-muted hover:text-text hover:underline">
                <span className="sr-only">{suiteLabel(one)}, </span>step {whole(step)}: <span className="text-text">{hundredths(figure.value)} %</span>
              </Link>
            ))}
          </li>
        ))}
      </ul>
    </div>
  );
}
