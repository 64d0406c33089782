import { strokeOf } from "@/features/metrics/palette";
import { whole } from "@/lib/format";

import type { Histogram } from "./corpus-shape";

const HEIGHT = 72;

/** How the documents are distributed, a column a bin, a colour a domain. */
export function Histograms({ histograms }: { histograms: readonly Histogram[] }) {
  const domains = histograms[0]?.domains ?? [];
  return (
    <section aria-label="Distributions" className="flex flex-col gap-3">
      <h3 className="flex flex-wrap items-baseline gap-x-4 gap-y-1 font-medium">
        Distributions
        <span className="flex flex-wrap gap-x-3 text-sm font-normal text-muted">
          {domains.map((domain, i) => (
            <span key={domain} className="inline-flex items-center gap-1.5">
              <span aria-hidden className="size-2.5 rounded-full" style={{ background: strokeOf(i).color }} />
              {domain}
            </span>
          ))}
        </span>
      </h3>
      <div className="grid gap-x-10 gap-y-5 sm:grid-cols-2">
        {histograms.map((histogram) => (
          <Columns key={histogram.name} histogram={histogram} />
        ))}
      </div>
    </section>
  );
}

function Columns({ histogram: { title, domains, bins } }: { histogram: Histogram }) {
  const most = Math.max(1, ...bins.map(({ total }) => total));
  const middle = bins.reduce((best, bin) => (bin.total > best.total ? bin : best));
  return (
    <figure className="min-w-0">
      <figcaption className="text-sm">
        {title} <span className="text-muted">most: {middle.label}</span>
      </figcaption>
      <ul className="mt-1 flex items-end gap-px border-b border-line" style={{ height: HEIGHT }} aria-label={title}>
        {bins.map(({ label, total, counts }) => (
          <li
            key={label}
            className="flex h-full min-w-0 flex-1 flex-col-reverse hover:bg-hover"
            title={[`${label}: ${whole(total)} documents`, ...counts.flatMap((count, i) => (count > 0 ? [`${domains[i]} ${whole(count)}`] : []))].join(", ")}
          >
            <span className="sr-only">
              {label}: {whole(total)}
            </span>
            {counts.map((count, i) => count > 0 && <span key={domains[i]} aria-hidden style={{ height: Math.max(1, (HEIGHT * count) / most), background: strokeOf(i).color }} />)}
          </li>
        ))}
      </ul>
      <p className="flex justify-between text-xs text-muted" aria-hidden>
        <span>{bins[0]?.label}</span>
        <span>{bins.at(-1)?.label}</span>
      </p>
    </figure>
  );
}
