import { useState } from "react";

import { Cell, Head, Table } from "@/components/ui/table";
import { whole } from "@/lib/format";

import type { Rejections as Counted } from "./corpus-shape";

/** Why documents were not taken, a column a domain or a source. */
export function Rejections({ byDomain, bySource }: { byDomain: Counted; bySource: Counted }) {
  const [by, choose] = useState<"domain" | "source">("domain");
  const shown = by === "domain" ? byDomain : bySource;
  return (
    <section aria-label="Rejections" className="-mx-4">
      <div className="mb-1 flex flex-wrap items-baseline gap-x-3 px-4">
        <h3 className="font-medium">Not taken, by {by} and reason</h3>
        <button type="button" className="text-accent hover:underline" onClick={() => choose(by === "domain" ? "source" : "domain")}>
          {by === "domain" ? "by source" : "by domain"}
        </button>
      </div>
      <Table label="Rejections">
        <thead>
          <tr>
            <Head>Reason</Head>
            {shown.columns.map((column) => (
              <Head key={column} right>
                {column}
              </Head>
            ))}
            <Head right>All</Head>
          </tr>
        </thead>
        <tbody>
          {shown.rows.map(({ reason, counts, total }) => (
            <tr key={reason}>
              <Cell className="text-bad">{reason}</Cell>
              {counts.map((count, i) => (
                <Cell key={shown.columns[i]} right className={count ? "" : "text-muted"}>
                  {count ? whole(count) : "–"}
                </Cell>
              ))}
              <Cell right>{whole(total)}</Cell>
            </tr>
          ))}
        </tbody>
      </Table>
    </section>
  );
}
