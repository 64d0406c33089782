import { figure } from "@/lib/format";
import { countsOf, type Json, numberOf, recordOf, recordsOf, textOf } from "@/lib/unknown";

/** corpus.json as far as the page shows it. Pure. */

export type Count = readonly [name: string, count: number];
export type CorpusSource = { readonly name: string; readonly domain: string; readonly licence: string; readonly origin: string; readonly train: number; readonly heldout: number; readonly lost: number; readonly reasons: readonly Count[]; readonly bytes: number };
/** Documents by value, in bins; `label` says from where to where. */
export type Histogram = { readonly name: string; readonly title: string; readonly domains: readonly string[]; readonly bins: readonly { readonly label: string; readonly total: number; readonly counts: readonly number[] }[] };
export type Domain = { readonly name: string; readonly documents: number; readonly bytes: number };
/** Documents that were not taken: a row a reason, most first; a column a domain or a source. */
export type Rejections = { readonly columns: readonly string[]; readonly rows: readonly { readonly reason: string; readonly counts: readonly number[]; readonly total: number }[] };
export type Corpus = {
  readonly domains: readonly Domain[];
  readonly sources: readonly CorpusSource[];
  /** Documents by what became of them, most first. */
  readonly fates: readonly Count[];
  /** Bytes of what was kept. */
  readonly licences: readonly Count[];
  readonly notes: readonly Count[];
  readonly histograms: readonly Histogram[];
  readonly evaluationSets: readonly { readonly name: string; readonly items: number; readonly licence: string }[];
  readonly examples: readonly { readonly reason: string; readonly texts: readonly string[] }[];
};

const DIVIDED = ["train", "heldout"];

export function corpusOf(raw: Json): Corpus {
  const curation = recordOf(raw.curation);
  const sources = recordsOf(raw.sources);
  const fates = new Map<string, number>();
  const licences = new Map<string, number>();
  const add = (to: Map<string, number>, name: string, count: number) => to.set(name, (to.get(name) ?? 0) + count);
  const shown = sources.map((source): CorpusSource => {
    const name = textOf(source.name);
    const ends = Object.entries(source).filter(([, value]) => numberOf(recordOf(value).documents) !== null);
    const rejected = Object.entries(recordOf(recordOf(curation.sources)[name])).filter(([fate]) => fate !== "kept");
    for (const [fate, value] of [...ends, ...rejected]) add(fates, fate, documentsOf(value));
    const lost = [...ends.filter(([fate]) => !DIVIDED.includes(fate)), ...rejected].map(([fate, value]): Count => [fate, documentsOf(value)]);
    const bytes = DIVIDED.reduce((sum, split) => sum + (numberOf(recordOf(source[split]).bytes) ?? 0), 0);
    add(licences, textOf(source.licence) || "not said", bytes);
    return {
      name, domain: textOf(source.domain), licence: textOf(source.licence), bytes, origin: [textOf(source.distribution), textOf(source.version)].filter(Boolean).join(" "),
      train: documentsOf(source.train), heldout: documentsOf(source.heldout),
      lost: lost.reduce((sum, [, count]) => sum + count, 0), reasons: ordered(new Map(lost)),
    };
  });
  return {
    domains: Object.entries(recordOf(raw.domains)).map(([name, entry]) => ({ name, documents: sumOf(entry, "documents"), bytes: sumOf(entry, "bytes") })).sort((a, b) => b.bytes - a.bytes),
    sources: shown,
    fates: ordered(fates),
    licences: ordered(licences),
    notes: countsOf(curation.notes),
    histograms: Object.entries(recordOf(raw.distributions)).flatMap(([name, entry]) => histogramOf(name, recordOf(entry))),
    evaluationSets: recordsOf(curation.evaluation_sets).map((set) => ({ name: textOf(set.name), items: numberOf(set.items) ?? 0, licence: textOf(set.licence) })),
    examples: Object.entries(recordOf(curation.examples)).map(([reason, examples]) => ({ reason, texts: recordsOf(examples).map(exampleText) })),
  };
}

/** Without the empty bins at both ends; nothing where all is empty. */
export function histogramOf(name: string, raw: Json): Histogram[] {
  const edges = numbersOf(raw.edges);
  const domains = Object.entries(recordOf(raw.domains));
  const bins = [...edges, Infinity].map((end, i) => {
    const counts = domains.map(([, counted]) => numbersOf(counted)[i] ?? 0);
    const label = i === 0 ? `below ${figure(end)}` : end === Infinity ? `${figure(edges[i - 1] ?? 0)} and more` : `${figure(edges[i - 1] ?? 0)} to ${figure(end)}`;
    return { label, counts, total: counts.reduce((sum, count) => sum + count, 0) };
  });
  const filled = bins.map(({ total }) => total > 0);
  const [first, last] = [filled.indexOf(true), filled.lastIndexOf(true)];
  return first < 0 ? [] : [{ name, title: textOf(raw.title) || name, domains: domains.map(([domain]) => domain), bins: bins.slice(first, last + 1) }];
}

const numbersOf = (raw: unknown): number[] => (Array.isArray(raw) ? raw.map((value) => numberOf(value) ?? 0) : []);

/** `column` says where a source's documents are counted. */
export function rejectionsOf(sources: readonly CorpusSource[], column: (source: CorpusSource) => string): Rejections {
  const lost = sources.filter((source) => source.lost > 0);
  const columns = [...new Set(lost.map(column))];
  const totals = new Map<string, number>();
  const found = new Map<string, number>();
  for (const source of lost) {
    for (const [reason, count] of source.reasons) {
      const cell = `${reason}\0${column(source)}`;
      totals.set(reason, (totals.get(reason) ?? 0) + count);
      found.set(cell, (found.get(cell) ?? 0) + count);
    }
  }
  return { columns, rows: ordered(totals).map(([reason, total]) => ({ reason, total, counts: columns.map((name) => found.get(`${reason}\0${name}`) ?? 0) })) };
}

export type Bar = { readonly name: string; readonly count: number; readonly length: number; readonly share: number };

/** `length`: of the longest; `share`: of all. */
export function barsOf(counts: readonly Count[]): Bar[] {
  const most = Math.max(1, ...counts.map(([, count]) => count));
  const all = Math.max(1, counts.reduce((sum, [, count]) => sum + count, 0));
  return counts.map(([name, count]) => ({ name, count, length: count / most, share: count / all }));
}

const documentsOf = (raw: unknown): number => numberOf(recordOf(raw).documents) ?? 0;
const sumOf = (raw: unknown, unit: string): number => DIVIDED.reduce((sum, split) => sum + (numberOf(recordOf(raw)[`${split}_${unit}`]) ?? 0), 0);
const ordered = (counts: Map<string, number>): Count[] => [...counts].filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]);
const exampleText = (raw: Json): string => Object.values(raw).filter((value): value is string => typeof value === "string").join(": ");
