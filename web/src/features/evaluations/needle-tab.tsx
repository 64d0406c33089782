import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";

import type { EvaluationOut, Figure } from "@/api";
import { HeatCell } from "@/components/ui/heat-cell";
import { Stale } from "@/components/ui/notice";
import { Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";
import { whole } from "@/lib/format";

import { hundredths } from "./board-shape";
import { cellName, type NeedleMap, needleMap, needleText, positionsText, waysOf } from "./needle-shape";
import { useOthers } from "./queries";

type Open = (evaluation: EvaluationOut, subtask: string) => void;

/** Needles found by depth and length: this evaluation's heat map, and those of the same checkpoint with its positions turned otherwise. */
export default function NeedleTab({ evaluation, onOpen }: { evaluation: EvaluationOut; onOpen: Open }) {
  const others = useOthers(evaluation);
  const ways = waysOf(evaluation, others.data ?? []);
  return (
    <div className="flex flex-col gap-3 overflow-auto p-4">
      <Stale error={others.error} />
      <div className={cn("grid gap-6", ways.length > 1 && "2xl:grid-cols-2")}>
        {ways.map((one) => {
          const map = needleMap(one);
          return map && <HeatMap key={one.id} evaluation={one} map={map} isThis={one.id === evaluation.id} onOpen={onOpen} />;
        })}
      </div>
      <p className="max-w-4xl text-sm text-muted">
        Share of texts whose hidden pair the model named and no other: right answers of n, Wilson’s 95 % interval in per cent. Tokens are the target’s, of the middle prompt of a length. A cell opens its transcripts.
      </p>
      {ways.length === 1 && (
        <p className="max-w-4xl text-sm text-muted">
          Evaluated with its positions turned otherwise, the same checkpoint stands beside: <code className="font-mono">abruzzi eval --suite needle --target latest --yarn 4x1024</code>, or an endpoint with <code className="font-mono">yarn</code> in a recipe.
        </p>
      )}
    </div>
  );
}

function HeatMap({ evaluation, map, isThis, onOpen }: { evaluation: EvaluationOut; map: NeedleMap; isThis: boolean; onOpen: Open }) {
  const way = positionsText(evaluation.target_detail);
  const { score } = evaluation.summary;
  const beyond = map.lengths.length - map.inside;
  const isMarked = map.trained !== null;
  return (
    <section aria-label={`Needles: ${way}`} className="min-w-0">
      <h3 className="flex flex-wrap items-baseline gap-x-3 pb-1">
        <span className="text-lg font-medium">{way}</span>
        <span className="text-muted">{score ? `${hundredths(score.value)} % of all` : "no score"}</span>
        {!isThis && (
          <Link to="/evaluations/$evaluationId" params={{ evaluationId: evaluation.id }} className="text-sm text-accent hover:underline">
            that evaluation
          </Link>
        )}
      </h3>
      <Table label={`Right answers by depth and length, ${way}`}>
        <thead>
          {isMarked && (
            <tr>
              <td />
              {map.inside > 0 && <Group span={map.inside}>within the trained length, {whole(map.trained ?? 0)} tokens</Group>}
              {beyond > 0 && <Group span={beyond} isBeyond={map.inside > 0}>{map.inside > 0 ? "beyond it" : `beyond the trained length, ${whole(map.trained ?? 0)} tokens`}</Group>}
            </tr>
          )}
          <tr>
            <Head title="Share of the text that stands before the needle">Depth</Head>
            {map.lengths.map(({ words, tokens }, i) => (
              <Head key={words} className={cn("h-11!", edge(map, i))}>
                {tokens === null ? "" : `${whole(tokens)} tokens`}
                <span className="block font-normal">{whole(words)} words</span>
              </Head>
            ))}
          </tr>
        </thead>
        <tbody>
          {map.depths.map((depth, line) => (
            <tr key={depth}>
              <th scope="row" className="border-b border-line px-2.5 py-1 text-left font-medium whitespace-nowrap first:pl-4">{depth} %</th>
              {map.lengths.map(({ words }, i) => (
                <td key={words} className={cn("h-px border-b border-line p-0.5", edge(map, i))}>
                  <NeedleCell figure={map.cells[line]?.[i] ?? null} words={words} depth={depth} onOpen={() => onOpen(evaluation, cellName(words, depth))} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}

/** Where training ended. */
const edge = (map: NeedleMap, column: number): string => (map.trained !== null && column === map.inside && column > 0 ? "border-l-2 border-l-accent" : "");

function Group({ span, isBeyond = false, children }: { span: number; isBeyond?: boolean; children: ReactNode }) {
  return (
    <th scope="colgroup" colSpan={span} className={cn("px-2.5 pt-1 text-left text-sm font-normal whitespace-nowrap text-muted", isBeyond && "border-l-2 border-l-accent text-accent")}>
      {children}
    </th>
  );
}

function NeedleCell({ figure, words, depth, onOpen }: { figure: Figure | null; words: number; depth: number; onOpen: () => void }) {
  if (!figure) return <span className="px-2 text-faint" title="Nothing could be scored here: such a text may be longer than the model's positions.">–</span>;
  return (
    <HeatCell name={`${whole(words)} words, depth ${depth} %`} rate={figure.value} value={`${Math.round(100 * figure.value)} %`} about={needleText(figure)} isStrong title="Show these transcripts" onOpen={onOpen} />
  );
}
