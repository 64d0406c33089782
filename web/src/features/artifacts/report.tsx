import { useQuery } from "@tanstack/react-query";

import type { RunOut } from "@/api";
import { artifactsListOptions } from "@/api/@tanstack/react-query.gen";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Cell, Head, Table } from "@/components/ui/table";
import { bytes, compact, percent, whole } from "@/lib/format";
import { impatientFetch } from "@/lib/patience";

import { fileAddress } from "./files";
import { type Domain, type Interval, type Report as ReportShape, readReport } from "./report-shape";

/** The evaluation in numbers: bits per byte by domain against the n-gram, cloze items, sample text. */
export default function Report({ run }: { run: RunOut }) {
  const artifacts = useQuery(artifactsListOptions({ query: { run: run.id, kind: "report", order: "newest", limit: 50 } }));
  const newest = artifacts.data?.items.find((artifact) => artifact.deleted_at === null);
  const report = useQuery({
    queryKey: ["report", newest?.id],
    enabled: newest !== undefined,
    staleTime: Infinity,
    queryFn: async ({ signal }) => {
      const response = await impatientFetch(fileAddress(newest?.id ?? "", "report.json"), { signal });
      if (!response.ok) throw await response.json();
      return readReport(await response.json());
    },
  });
  const error = artifacts.error ?? report.error;
  if (error && !report.data) return <div className="p-4"><ProblemNotice error={error} /></div>;
  if (artifacts.data && !newest) {
    return (
      <Empty title="Not evaluated yet" command={`abruzzi run recipes/tiny.toml --wait`}>
        A stage of kind <code className="font-mono text-sm">evaluate</code> writes held-out bits per byte, cloze items and sample text here.
      </Empty>
    );
  }
  if (report.isPending) return <SkeletonLines count={8} className="p-4" />;
  if (!report.data) return <Empty title="This report has another shape">Download report.json under Artifacts.</Empty>;
  return (
    <>
      <Stale error={error} className="px-4 pt-2" />
      <Shown report={report.data} />
    </>
  );
}

function Shown({ report }: { report: ReportShape }) {
  const whole_ = report.domains[0];
  return (
    <div className="flex max-w-5xl flex-col gap-6 py-4">
      <section className="flex flex-wrap gap-x-10 gap-y-3 px-4">
        {whole_ && <Headline title="Held-out bits per byte" value={whole_.model.value.toFixed(3)} about={range(whole_.model, (v) => v.toFixed(3))} />}
        {whole_?.betterBy && (
          <Headline
            title={`${whole_.betterBy.value > 0 ? "Better" : "Worse"} than the ${report.ngramOrder ?? "n"}-gram by`}
            value={Math.abs(whole_.betterBy.value).toFixed(3)}
            about={whole_.betterBy.low * whole_.betterBy.high > 0 ? range(whole_.betterBy, (v) => v.toFixed(3)) : "the interval includes 0: no certain difference"}
          />
        )}
        {report.cloze && <Headline title="Cloze items right" value={percent(report.cloze.accuracy.value)} about={`chance ${percent(report.cloze.chance)}, ${range(report.cloze.accuracy, percent)}`} />}
        {report.step !== null && <Headline title="Checkpoint" value={`step ${whole(report.step)}`} about={report.tokens === null ? "" : `${compact(report.tokens)} tokens`} />}
      </section>
      <section>
        <h2 className="mb-1 px-4 font-medium">By domain</h2>
        <Domains domains={report.domains} />
      </section>
      {report.cloze && report.cloze.relations.length > 0 && (
        <section>
          <h2 className="mb-1 px-4 font-medium">Cloze items</h2>
          <Table label="Cloze items">
            <thead>
              <tr>
                <Head>Relation</Head>
                <Head right>Items</Head>
                <Head right>Right</Head>
                <Head right>95 % interval</Head>
              </tr>
            </thead>
            <tbody>
              {report.cloze.relations.map((relation) => (
                <tr key={relation.name}>
                  <Cell>{relation.name}</Cell>
                  <Cell right>{relation.items}</Cell>
                  <Cell right>{percent(relation.accuracy.value)}</Cell>
                  <Cell right className="text-muted">{range(relation.accuracy, percent)}</Cell>
                </tr>
              ))}
            </tbody>
          </Table>
        </section>
      )}
      {report.samples.length > 0 && (
        <section className="flex flex-col gap-2 px-4">
          <h2 className="font-medium">Sample text</h2>
          {report.samples.map((sample, i) => (
            <pre key={i} className="max-w-3xl rounded-md border border-line bg-sunken px-3 py-2 font-mono text-sm break-words whitespace-pre-wrap">
              <span className="text-accent">{sample.prompt}</span>
              {sample.text}
            </pre>
          ))}
        </section>
      )}
    </div>
  );
}

function Headline({ title, value, about }: { title: string; value: string; about: string }) {
  return (
    <div>
      <p className="text-sm text-muted">{title}</p>
      <p className="text-xl font-semibold tracking-tight">{value}</p>
      <p className="text-sm text-muted">{about}</p>
    </div>
  );
}

function Domains({ domains }: { domains: readonly Domain[] }) {
  const most = Math.max(...domains.flatMap((domain) => [domain.model.high, domain.ngram?.high ?? 0]));
  return (
    <Table label="Bits per byte by domain">
      <thead>
        <tr>
          <Head>Domain</Head>
          <Head right>Documents</Head>
          <Head right>Bytes</Head>
          <Head right>Model</Head>
          <Head right>n-gram</Head>
          <Head right>Better by</Head>
          <Head className="w-64">
            <span className="inline-block size-2 rounded-xs bg-accent" aria-hidden /> model <span className="ml-2 inline-block size-2 rounded-xs bg-line-strong" aria-hidden /> n-gram
          </Head>
        </tr>
      </thead>
      <tbody>
        {domains.map((domain) => (
          <tr key={domain.name}>
            <Cell className="font-medium">{domain.name}</Cell>
            <Cell right className="text-muted">{whole(domain.documents)}</Cell>
            <Cell right className="text-muted">{bytes(domain.bytes)}</Cell>
            <Cell right title={range(domain.model, (v) => v.toFixed(3))}>{domain.model.value.toFixed(3)}</Cell>
            <Cell right className="text-muted">{domain.ngram?.value.toFixed(3) ?? "–"}</Cell>
            <Cell right className={(domain.betterBy?.value ?? 0) > 0 ? "text-ok" : "text-bad"}>{domain.betterBy?.value.toFixed(3) ?? "–"}</Cell>
            <Cell>
              <div className="flex flex-col gap-0.5" aria-hidden>
                <span className="h-1.5 rounded-full bg-accent" style={{ width: `${(100 * domain.model.value) / most}%` }} />
                {domain.ngram && <span className="h-1.5 rounded-full bg-line-strong" style={{ width: `${(100 * domain.ngram.value) / most}%` }} />}
              </div>
            </Cell>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}

const range = (interval: Interval, format: (value: number) => string): string => `${format(interval.low)} to ${format(interval.high)}`;
