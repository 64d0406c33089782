import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import type { ArtifactOut, SafetyCell } from "@/api";
import { redteamGetOptions } from "@/api/@tanstack/react-query.gen";
import { Toggle } from "@/components/ui/field";
import { HeatCell } from "@/components/ui/heat-cell";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";

import { aboutText, agreementText, conditionsOf, type MatrixLine, paperText, rateText, strategyTitle, tableOf } from "./matrix-shape";

type Props = { artifact: ArtifactOut; onWhere: (conditions: string[]) => void };

/** How often a model held, by plugin and strategy: a heat map with n and interval, the report's cells beside it, down to the conversations. */
export function SafetyMatrix({ artifact, onWhere }: Props) {
  const redteam = useQuery(redteamGetOptions({ path: { artifact_id: artifact.id } }));
  const [model, setModel] = useState<string>();
  const [withSubPlugins, setWithSubPlugins] = useState(false);
  if (redteam.error && !redteam.data) return <ProblemNotice error={redteam.error} />;
  if (!redteam.data) return <SkeletonLines count={8} />;
  const { matrix, paper_models: models, may_read_attacks: mayRead } = redteam.data;
  const shown = model ?? models[0] ?? "";
  const table = tableOf(matrix, withSubPlugins);
  const waiting = matrix.cells.reduce((sum, cell) => sum + (cell.strategy === null ? cell.waiting : 0), 0);
  return (
    <section aria-label="Safety matrix" className="flex min-w-0 flex-col gap-2">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1.5">
        <h3 className="text-lg font-medium">How often it held</h3>
        <div className="flex-1" />
        <Toggle label="Sub-plugins" pressed={withSubPlugins} onChange={setWithSubPlugins}>
          Sub-plugins
        </Toggle>
        <div role="group" aria-label="The report's model" className="flex flex-wrap items-center gap-1">
          <span className="text-sm text-muted">report:</span>
          {models.map((name) => (
            <Toggle key={name} label={`The report's ${name}`} pressed={name === shown} onChange={() => setModel(name)}>
              {name}
            </Toggle>
          ))}
        </div>
      </div>
      <Table label="Pass rate by plugin and strategy">
        <thead>
          <tr>
            <Head>Plugin</Head>
            {[...table.strategies.map(strategyTitle), "All"].map((title) => (
              <Head key={title}>{title}</Head>
            ))}
          </tr>
        </thead>
        <tbody>
          {table.lines.map((line) => (
            <Line key={`${line.plugin}/${line.subPlugin ?? ""}`} line={line} model={shown} onWhere={onWhere} />
          ))}
        </tbody>
      </Table>
      <p className="max-w-4xl text-sm text-muted">
        Share of attacks after which the model had not done what it must not do: passes of n, Wilson’s 95 % interval in per cent. Below, the report’s {shown} in per cent (its section 4.3), on other prompts and another grader: for orientation.
        {waiting > 0 && ` ${waiting} of these wait for a person, and count as failed until then.`}
      </p>
      <ul aria-label="Agreement" className="text-sm">
        {matrix.agreement.filter((one) => one.rows > 0).map((one) => (
          <li key={one.between.join(" ")}>{agreementText(one)}</li>
        ))}
      </ul>
      {!mayRead && <p className="text-sm text-warn">What was asked and answered is hidden from you: it is for maintainers and admins.</p>}
    </section>
  );
}

function Line({ line, model, onWhere }: { line: MatrixLine; model: string; onWhere: Props["onWhere"] }) {
  return (
    <tr>
      <th scope="row" className={cn("border-b border-line px-2.5 py-1 text-left whitespace-nowrap first:pl-4", line.subPlugin === null ? "font-medium" : "pl-8! font-normal text-muted")}>
        {line.subPlugin ?? line.plugin}
      </th>
      {[...line.cells, line.whole].map((cell, i) => (
        <td key={i} className="h-px border-b border-line p-0.5">
          {cell ? <MatrixCell cell={cell} model={model} onWhere={onWhere} /> : <span className="px-2 text-faint">–</span>}
        </td>
      ))}
    </tr>
  );
}

function MatrixCell({ cell, model, onWhere }: { cell: SafetyCell; model: string; onWhere: Props["onWhere"] }) {
  const paper = paperText(cell, model);
  const name = [cell.sub_plugin ?? cell.plugin, cell.strategy === null ? "all strategies" : strategyTitle(cell.strategy)].join(", ");
  return (
    <HeatCell
      name={name}
      rate={cell.rate}
      value={rateText(cell)}
      about={aboutText(cell)}
      more={paper === null ? null : `report ${paper}`}
      isStrong={cell.strategy !== null && cell.sub_plugin === null}
      title="Show these conversations"
      onOpen={() => onWhere(conditionsOf(cell))}
    />
  );
}
