import type { ArtifactOut, NounOut } from "@/api";
import type { DatasetSearch } from "@/app/search";
import { Code } from "@/components/ui/code";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Lineage } from "@/features/artifacts/lineage";
import { SafetyMatrix } from "@/features/redteam/matrix";
import { bytes, whole } from "@/lib/format";

import { Bars } from "./bars";
import { corpusOf } from "./corpus-shape";
import { CorpusStatistics } from "./corpus-statistics";
import { Coverage } from "./coverage";
import type { Change } from "./filters";
import { inOrder, nounOf } from "./listing";
import { fateTone } from "./marks";
import { useFacts } from "./queries";

type Props = { artifact: ArtifactOut; nouns: readonly NounOut[]; facts: readonly string[]; onView: (change: Change) => void };

/** What is in it, what became of its rows, and what it was made from. */
export default function Overview({ artifact, nouns, facts, onView }: Props) {
  const rows = inOrder(nouns);
  if (rows.length === 0) {
    return (
      <Empty title="No rows to look at" command={`abruzzi artifacts pull ${artifact.id}`}>
        This {artifact.kind} holds files for programs. Rows stand in files named like rewrites-00000.jsonl.zst.
      </Empty>
    );
  }
  const show = (noun: string) => (fate: string) => onView({ tab: noun, fate: [fate], row: undefined, where: undefined, q: undefined });
  return (
    <div className="h-full overflow-auto">
      <Lineage runId={artifact.run_id} artifactId={artifact.id} />
      <div className="flex max-w-6xl flex-col gap-7 px-4 py-4">
        {facts.includes("redteam") && <SafetyMatrix artifact={artifact} onWhere={(where) => onView({ tab: "redteam", where, fate: undefined, row: undefined, q: undefined })} />}
        <dl className="flex flex-wrap gap-x-10 gap-y-3">
          {rows.map((noun) => (
            <div key={noun.noun}>
              <dt className="text-sm text-muted">{nounOf(noun.noun).title}</dt>
              <dd className="text-xl font-semibold tracking-tight">{noun.rows === null ? "–" : whole(noun.rows)}</dd>
              <dd className="text-sm text-muted">{bytes(noun.size_bytes)} packed</dd>
            </div>
          ))}
        </dl>
        <div className="grid gap-x-10 gap-y-6 lg:grid-cols-2">
          {rows.filter((noun) => Object.keys(noun.fates).length > 0).map((noun) => (
            <Bars key={noun.noun} title={`${nounOf(noun.noun).title}: what became of them`} counts={fatesOf(noun)} tone={fateTone} onChoose={show(noun.noun)} />
          ))}
        </div>
        {facts.includes("corpus") && <Corpus artifact={artifact} onView={onView} />}
        {facts.includes("catalogue") && <Coverage artifact={artifact} hasPoints={facts.includes("coverage")} onView={onView} />}
        <section className="flex flex-col gap-1.5" aria-label="Take it away">
          <h3 className="font-medium">Take it away</h3>
          <Code text={`abruzzi artifacts pull ${artifact.id}`} className="self-start" />
        </section>
      </div>
    </div>
  );
}

function Corpus({ artifact, onView }: { artifact: ArtifactOut; onView: (change: Change) => void }) {
  const facts = useFacts(artifact.id, "corpus");
  if (facts.error) return <ProblemNotice error={facts.error} />;
  if (!facts.data) return <SkeletonLines count={6} />;
  const where = (condition: string): Partial<DatasetSearch> => ({ tab: "train", where: [condition] });
  return <CorpusStatistics corpus={corpusOf(facts.data)} onWhere={(condition) => onView({ ...where(condition), row: undefined, q: undefined, fate: undefined })} />;
}

const fatesOf = (noun: NounOut): [string, number][] => Object.entries(noun.fates).filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
