import { Download } from "lucide-react";

import type { ArtifactOut } from "@/api";
import { Button, buttonClass } from "@/components/ui/button";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { fileAddress } from "@/features/artifacts/files";
import { cn } from "@/lib/cn";
import { compact, figure, whole } from "@/lib/format";

import { imageAddress, savePng } from "./picture";
import { useStudy } from "./queries";
import { type LossArm, lossText, type Study } from "./study-shape";

/** What the run's arms came to, beside what the paper found. */
export default function StudyTab({ artifact }: { artifact: ArtifactOut }) {
  const { data, error } = useStudy(artifact);
  if (error && !data) return <div className="p-4"><ProblemNotice error={error} /></div>;
  if (!data) return <SkeletonLines count={8} className="p-4" />;
  const { study, picture } = data;
  if (!study) return <Empty title="This comparison has another shape">Download comparison.json under Artifacts.</Empty>;
  return (
    <div className="flex max-w-6xl flex-col gap-5 py-4">
      <header className="flex flex-wrap items-center gap-2 px-4">
        <h2 className="flex-1 text-lg font-medium max-sm:basis-full">{study.title}</h2>
        <Button onClick={() => void savePng(picture, `${artifact.run_id}-study.png`)}>
          <Download /> PNG
        </Button>
        {["svg", "json", "md"].map((ending) => (
          <a key={ending} className={buttonClass()} href={fileAddress(artifact.id, `comparison.${ending}`)} download>
            {ending.toUpperCase()}
          </a>
        ))}
      </header>
      {study.paper && <Beside study={study} paper={study.paper} />}
      <img src={imageAddress(picture)} alt={`${study.title}, as drawn by the stage ${artifact.stage_id}`} className="mx-4 max-w-[calc(100%-2rem)] self-start rounded-md border border-line" />
      {study.arms.length > 0 && <Arms arms={study.arms} seeds={study.seeds} />}
    </div>
  );
}

const LOOKS: Readonly<Record<string, string>> = { agrees: "bg-ok/10 text-ok", "agrees in part": "bg-warn-soft text-warn", "does not agree": "bg-bad-soft text-bad" };

function Beside({ study, paper }: { study: Study; paper: NonNullable<Study["paper"]> }) {
  return (
    <section aria-label="Beside the paper" className="flex flex-col gap-2 px-4">
      <p>
        <span className="font-medium">The paper, section {paper.section}.</span> {paper.finding} <span className="text-muted">({paper.conditions}.)</span>
      </p>
      <ul className="flex flex-col gap-1.5">
        {study.claims.map((one) => (
          <li key={one.claim} className="grid grid-cols-[8.5rem_1fr] items-start gap-x-3 max-sm:grid-cols-1">
            <span className={cn("mt-px justify-self-start rounded-sm px-1.5 text-sm font-medium", LOOKS[one.verdict] ?? "bg-sunken text-muted")}>{one.verdict}</span>
            <span>
              {one.claim} <span className="text-muted">{one.ours}</span>
            </span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Arms({ arms, seeds }: { arms: readonly LossArm[]; seeds: number }) {
  const hasLogits = arms.some((arm) => arm.points.some((point) => point.logit !== null));
  return (
    <section>
      <h3 className="mb-1 px-4 font-medium">Arms</h3>
      <Table label="Arms">
        <thead>
          <tr>
            <Head>Arm</Head>
            <Head right>Parameters</Head>
            <Head right title="That one token meets, embeddings included">Active</Head>
            <Head right>Tokens</Head>
            <Head right title="Forward and backward">FLOPs</Head>
            <Head right title={`Nats a token; mean over ${seeds} seeds with its 95 % interval`}>Held-out loss</Head>
            {hasLogits && <Head right title="On held-out text, at the end">Largest logit</Head>}
          </tr>
        </thead>
        <tbody>
          {arms.flatMap((arm) =>
            arm.points.map((point, i) => (
              <tr key={`${arm.label} ${point.tokens}`}>
                <Cell>{i === 0 ? arm.label : <span className="sr-only">{arm.label}</span>}</Cell>
                <Cell right className="text-muted">{compact(arm.parameters)}</Cell>
                <Cell right className="text-muted">{compact(arm.active)}</Cell>
                <Cell right>{whole(point.tokens)}</Cell>
                <Cell right>{point.flops.toExponential(2)}</Cell>
                <Cell right>{lossText(point.loss)}</Cell>
                {hasLogits && <Cell right>{point.logit === null ? "–" : figure(point.logit)}</Cell>}
              </tr>
            )),
          )}
        </tbody>
      </Table>
    </section>
  );
}
