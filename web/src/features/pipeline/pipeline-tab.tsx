import { Link } from "@tanstack/react-router";

import type { ArtifactOut, RunOut } from "@/api";
import { buttonClass } from "@/components/ui/button";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { fileAddress } from "@/features/artifacts/files";
import { Gantt, OPERATIONS } from "@/features/plan/gantt";
import { number, type Timeline } from "@/features/plan/layout-shape";
import { figure, percent } from "@/lib/format";
import { recordOf } from "@/lib/unknown";

import { chunksOf, firstOf, idleOf, type Measured, meanOf, shareAxis } from "./measured-shape";
import { useMeasured, usePlanned } from "./queries";

/** What each pipeline rank computed when, in one step, beside what was planned. */
export default function PipelineTab({ run, artifact }: { run: RunOut; artifact: ArtifactOut }) {
  const measured = useMeasured(artifact);
  const planned = usePlanned(run, artifact.stage_id);
  if (measured.error) return <div className="p-4"><ProblemNotice error={measured.error} /></div>;
  if (measured.isPending || planned.isPending) return <SkeletonLines count={8} className="p-4" />;
  if (!measured.data) return <Empty title="This timeline has another shape">Download timeline.json under Artifacts.</Empty>;
  const layout = planned.data ?? null;
  return (
    <div className="flex flex-col gap-5 p-4">
      <header className="flex flex-wrap items-center gap-2">
        <h2 className="flex-1 text-lg font-medium max-sm:basis-full">{artifact.stage_id}: {layout?.timeline ? "planned beside measured" : "measured"}</h2>
        <Link to="/plan" search={{ recipe: run.recipe_name }} className={buttonClass()}>Plan</Link>
        <a className={buttonClass()} href={fileAddress(artifact.id, "timeline.json")} download>JSON</a>
      </header>
      {planned.error && <ProblemNotice error={planned.error} />}
      <Pair measured={measured.data} planned={layout?.timeline ?? null} stepSeconds={number(recordOf(layout?.raw.step).seconds)} device={layout ? `${layout.device} (${layout.source})` : null} />
    </div>
  );
}

type PairProps = { measured: Measured; planned: Timeline | null; stepSeconds: number; device: string | null };

function Pair({ measured, planned, stepSeconds, device }: PairProps) {
  const shown = planned ? firstOf(measured.timeline, planned.microbatches) : measured.timeline;
  const chunks = chunksOf(measured.timeline);
  const isOneAxis = planned !== null && shareAxis(planned.seconds, shown.seconds);
  const until = planned && isOneAxis ? { until: Math.max(planned.seconds, shown.seconds) } : {};
  return (
    <>
      {planned && <Gantt title="Planned" timeline={planned} chunks={chunks} {...until} />}
      <Gantt title={`Measured, step ${measured.step}`} timeline={shown} chunks={chunks} {...until} />
      {planned && !isOneAxis && <p className="text-sm text-warn">The two take so different times that each has an axis of its own.</p>}
      <div className="max-w-4xl">
        <Table label="Planned and measured">
          <thead>
            <tr>
              <Head>One step</Head>
              {planned && <Head right>Planned</Head>}
              <Head right>Measured</Head>
              {planned && <Head right>Measured ÷ planned</Head>}
            </tr>
          </thead>
          <tbody>
            <Row name="Step" planned={planned && stepSeconds} measured={measured.stepSeconds} />
            <Row name="Pipeline" planned={planned && planned.seconds} measured={shown.seconds} />
            {OPERATIONS.map(([op, name]) => (
              <Row key={op} name={`${name.charAt(0).toUpperCase()}${name.slice(1)}, mean`} planned={planned && meanOf(planned, op)} measured={meanOf(shown, op)} />
            ))}
            <tr>
              <Cell>Ranks idle in the pipeline</Cell>
              {planned && <Cell right>{percent(idleOf(planned))}</Cell>}
              <Cell right>{percent(idleOf(shown))}</Cell>
              {planned && <Cell right />}
            </tr>
          </tbody>
        </Table>
      </div>
      <p className="max-w-4xl text-sm text-muted">
        Measured is one early step of the newest attempt, on the ranks of the first data-parallel group. A wait for a message is idle; a wait for other ranks of an all-to-all counts as computing. On GPUs the spans are those of the host, which issues the work.
        {device && ` Planned is of one ${device} a rank.`}
      </p>
    </>
  );
}

function Row({ name, planned, measured }: { name: string; planned: number | null; measured: number | null }) {
  const isPlanned = planned !== null;
  return (
    <tr>
      <Cell>{name}</Cell>
      {isPlanned && <Cell right>{seconds(planned)}</Cell>}
      <Cell right>{measured === null ? "–" : seconds(measured)}</Cell>
      {isPlanned && <Cell right>{measured !== null && planned > 0 ? `${(measured / planned).toFixed(2)}×` : "–"}</Cell>}
    </tr>
  );
}

const seconds = (value: number): string => (value >= 1 ? `${figure(value)} s` : `${figure(1000 * value)} ms`);
