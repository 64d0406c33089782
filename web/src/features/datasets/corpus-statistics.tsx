import { Cell, Head, Table } from "@/components/ui/table";
import { bytes, whole } from "@/lib/format";

import { Bars } from "./bars";
import { type Corpus, rejectionsOf } from "./corpus-shape";
import { Histograms } from "./histograms";
import { fateTone } from "./marks";
import { Rejections } from "./rejections";

/** Statistics of a corpus: mixture, licences, what was rejected and why, its sources. */
export function CorpusStatistics({ corpus, onWhere }: { corpus: Corpus; onWhere: (condition: string) => void }) {
  return (
    <>
      <div className="grid gap-x-10 gap-y-6 lg:grid-cols-2">
        <Bars title="What became of the documents" counts={corpus.fates} tone={fateTone} />
        <Bars title="Mixture of domains" counts={corpus.domains.map(({ name, bytes: size }) => [name, size])} unit={bytes} onChoose={(domain) => onWhere(`domain:${domain}`)} />
        <Bars title="Licences" counts={corpus.licences} unit={bytes} />
        {corpus.notes.length > 0 && <Bars title="Masked and mended" counts={corpus.notes} />}
      </div>
      {corpus.histograms.length > 0 && <Histograms histograms={corpus.histograms} />}
      {corpus.sources.some(({ lost }) => lost > 0) && <Rejections byDomain={rejectionsOf(corpus.sources, ({ domain }) => domain)} bySource={rejectionsOf(corpus.sources, ({ name }) => name)} />}
      <section aria-label="Sources" className="-mx-4">
        <h3 className="mb-1 px-4 font-medium">Sources</h3>
        <Table label="Sources">
          <thead>
            <tr>
              <Head>Source</Head>
              <Head>Domain</Head>
              <Head>Licence</Head>
              <Head>From</Head>
              <Head right>Train</Head>
              <Head right>Held out</Head>
              <Head right>Not taken</Head>
              <Head right>Bytes</Head>
            </tr>
          </thead>
          <tbody>
            {corpus.sources.map((source) => (
              <tr key={source.name}>
                <Cell>
                  <button type="button" className="font-medium hover:text-accent" title="Show its documents" onClick={() => onWhere(`source:${source.name}`)}>
                    {source.name}
                  </button>
                </Cell>
                <Cell className="text-muted">{source.domain}</Cell>
                <Cell className="text-muted">{source.licence}</Cell>
                <Cell className="text-muted">{source.origin || "–"}</Cell>
                <Cell right>{whole(source.train)}</Cell>
                <Cell right>{whole(source.heldout)}</Cell>
                <Cell right title={source.reasons.map(([reason, count]) => `${reason} ${whole(count)}`).join(", ")}>
                  {whole(source.lost)}
                  {source.reasons[0] && <span className="block text-sm text-muted">mostly {source.reasons[0][0]}</span>}
                </Cell>
                <Cell right>{bytes(source.bytes)}</Cell>
              </tr>
            ))}
          </tbody>
        </Table>
      </section>
      {corpus.evaluationSets.length > 0 && (
        <section aria-label="Evaluation sets">
          <h3 className="font-medium">Kept clean of evaluation sets</h3>
          <p className="text-muted">{corpus.evaluationSets.map((set) => `${set.name} (${whole(set.items)} items, ${set.licence})`).join(", ")}</p>
        </section>
      )}
      {corpus.examples.length > 0 && (
        <section aria-label="Examples of what was rejected" className="flex flex-col gap-1">
          <h3 className="font-medium">Examples of what was rejected</h3>
          {corpus.examples.map(({ reason, texts }) => (
            <details key={reason}>
              <summary className="text-bad">{reason}</summary>
              <ul className="flex flex-col gap-1 py-1 pl-4">
                {texts.map((text, i) => (
                  <li key={i} className="rounded-md border border-line bg-sunken px-2 py-1 font-mono text-sm break-words whitespace-pre-wrap">
                    {text}
                  </li>
                ))}
              </ul>
            </details>
          ))}
        </section>
      )}
    </>
  );
}
