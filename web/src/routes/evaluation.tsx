import { getRouteApi } from "@tanstack/react-router";
import { lazy, Suspense } from "react";

import type { ArtifactOut, DatasetOut, EvaluationOut } from "@/api";
import { type AnswerKind, EVALUATION_TABS, type EvaluationSearch, type EvaluationTab } from "@/app/search";
import { Segments } from "@/components/ui/field";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { Skeleton, SkeletonLines } from "@/components/ui/progress";
import { type Tab, Tabs } from "@/components/ui/tabs";
import type { Change } from "@/features/datasets/filters";
import { useArtifact, useDataset } from "@/features/datasets/queries";
import { targetName } from "@/features/evaluations/board-shape";
import { EvaluationHead } from "@/features/evaluations/evaluation-head";
import { needleMap } from "@/features/evaluations/needle-shape";
import { useEvaluation } from "@/features/evaluations/queries";
import { useShortcuts } from "@/lib/keys";
import { usePageTitle } from "@/lib/page-title";

const Explorer = lazy(() => import("@/features/datasets/explorer"));
const Against = lazy(() => import("@/features/evaluations/against"));
const NeedleTab = lazy(() => import("@/features/evaluations/needle-tab"));

const route = getRouteApi("/evaluations/$evaluationId");
const NOUN = "answers";
const TITLES: Record<EvaluationTab, string> = { needles: "Heat map", answers: "Answers", against: "Compare" };
const KINDS: readonly (readonly [AnswerKind | "all", string])[] = [["all", "All"], ["right", "Right"], ["wrong", "Wrong"], ["truncated", "Cut off"], ["infrastructure", "Infrastructure"], ["other", "Other"]];
/** Of a list's view, what stands in this page's address. */
const OURS = ["q", "where", "row"] as const;
/** Fates of the rows of a kind; what was cut off is scored all the same, so it is a condition. */
const FATES: Record<AnswerKind, readonly string[]> = { right: ["right"], wrong: ["wrong", "partly"], truncated: [], infrastructure: ["infrastructure"], other: ["target_error", "grader_error", "quarantined"] };

/** One suite's outcome for one target: its figures, each answer, and what another target answered instead. */
export function EvaluationPage() {
  const { evaluationId } = route.useParams();
  const evaluation = useEvaluation(evaluationId);
  usePageTitle(evaluation.data ? `${evaluation.data.suite}, ${targetName(evaluation.data)}` : "Evaluation");
  if (evaluation.data) return <Page key={evaluationId} evaluation={evaluation.data} />;
  return evaluation.error ? (
    <div className="mx-auto max-w-xl p-8">
      <ProblemNotice error={evaluation.error} />
    </div>
  ) : (
    <div className="flex flex-col gap-4 p-4">
      <Skeleton className="!h-5 w-48" />
      <SkeletonLines count={6} />
    </div>
  );
}

function Page({ evaluation }: { evaluation: EvaluationOut }) {
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const artifact = useArtifact(evaluation.artifact_id);
  const dataset = useDataset(evaluation.artifact_id);
  const error = artifact.error ?? dataset.error;
  const set = (change: { [K in keyof EvaluationSearch]?: EvaluationSearch[K] | undefined }) => void navigate({ search: (old) => ({ ...old, ...change }), replace: true });
  const tabs = EVALUATION_TABS.filter((id) => id !== "needles" || needleMap(evaluation) !== null).map((id): Tab<EvaluationTab> => ({ id, title: TITLES[id] }));
  const first = tabs[0]?.id ?? "answers";
  const tab = tabs.find((one) => one.id === search.tab)?.id ?? first;
  const show = (next: EvaluationTab) => set({ tab: next === first ? undefined : next });
  const transcripts = (of: EvaluationOut, subtask: string) => void navigate({ to: "/evaluations/$evaluationId", params: { evaluationId: of.id }, search: { tab: "answers", where: [`subtask:${subtask}`] } });
  useShortcuts("Evaluation", Object.fromEntries(tabs.map(({ id, title }, i) => [String(i + 1), [title, () => show(id)] as const])));
  return (
    <div className="flex h-full flex-col">
      <EvaluationHead evaluation={evaluation} />
      <Tabs label="Parts of the evaluation" tabs={tabs} value={tab} onChange={show}>
        <Suspense fallback={<SkeletonLines count={8} className="p-4" />}>
          {tab === "needles" && <NeedleTab evaluation={evaluation} onOpen={transcripts} />}
          {tab === "against" && <Against evaluation={evaluation} view={search} onView={set} />}
          {tab === "answers" && error && <div className="p-4"><ProblemNotice error={error} /></div>}
          {tab === "answers" && !error && !(artifact.data && dataset.data) && <SkeletonLines count={8} className="p-4" />}
          {tab === "answers" && artifact.data && dataset.data && <Answers evaluation={evaluation} artifact={artifact.data} dataset={dataset.data} view={search} onView={set} />}
        </Suspense>
      </Tabs>
    </div>
  );
}

type AnswersProps = { evaluation: EvaluationOut; artifact: ArtifactOut; dataset: DatasetOut; view: EvaluationSearch; onView: (change: { [K in keyof EvaluationSearch]?: EvaluationSearch[K] | undefined }) => void };

function Answers({ evaluation, artifact, dataset, view, onView }: AnswersProps) {
  const noun = dataset.nouns.find((one) => one.noun === NOUN);
  if (!noun) return <Empty title="This report keeps no answers" command={`abruzzi artifacts pull ${artifact.id}`}>Its files may say more.</Empty>;
  const kind = view.only;
  const fixed = {
    fate: kind ? FATES[kind] : [],
    where: [`suite:${evaluation.suite}`, ...(kind === "truncated" ? ["truncated:true"] : [])],
    lead: <Segments label="Which answers" value={kind ?? "all"} options={KINDS} onChange={(next) => onView({ only: next === "all" ? undefined : next, row: undefined })} />,
  };
  const change = (made: Change) => {
    const mine = Object.fromEntries(OURS.flatMap((key) => (key in made ? [[key, made[key]]] : [])));
    // Only "Clear the filter" names fates here.
    onView("fate" in made ? { ...mine, only: undefined } : mine);
  };
  return <Explorer artifact={artifact} noun={{ ...noun, rows: evaluation.summary.answers }} view={view as never} onView={change} fixed={fixed} />;
}
