import { Link } from "@tanstack/react-router";

import type { By, UsageOut, UsageRow } from "@/api";
import { Cell, Head, Table } from "@/components/ui/table";
import { cn } from "@/lib/cn";
import { percent } from "@/lib/format";

import { CAUSES, dayName, goodputOf, hours, type Unit } from "./usage";

const TITLES: Record<By, string> = { project: "Project", cause: "Cause", pool: "Pool", day: "Day (UTC)", run: "Run" };

/** Held hours by cause, a row for each day, run, project or pool; the same numbers as the picture. */
export function UsageTable({ usage, unit }: { usage: UsageOut; unit: Unit }) {
  const rows = usage.by === "day" ? usage.items.toReversed() : usage.items;
  return (
    <Table label={`Usage by ${usage.by}`}>
      <thead>
        <tr>
          <Head>{TITLES[usage.by]}</Head>
          <Head right>Held</Head>
          {CAUSES.map(({ id, title, about }) => (
            <Head key={id} right title={about}>
              {title}
            </Head>
          ))}
          <Head right title="Share of work in what was held">Goodput</Head>
          <Head right title="Of what was asked for, while nothing was held: beside what was held, not part of it">Queued beside</Head>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <Row key={row.key} row={row} unit={unit} name={<Name row={row} by={usage.by} />} />
        ))}
        {rows.length > 1 && <Row row={usage.total} unit={unit} name="Total" isTotal />}
      </tbody>
    </Table>
  );
}

function Row({ row, unit, name, isTotal = false }: { row: UsageRow; unit: Unit; name: React.ReactNode; isTotal?: boolean }) {
  const goodput = goodputOf(row, unit);
  return (
    <tr className={cn(isTotal && "font-medium")}>
      <Cell className="font-medium whitespace-nowrap">{name}</Cell>
      <Cell right className="font-medium">{hours(row.held[unit])}</Cell>
      {CAUSES.map(({ id }) => {
        const value = row.causes[id][unit];
        return (
          <Cell key={id} right className={value === 0 ? "text-faint" : id === "lost_work" || id === "hang" ? "text-bad" : "text-muted"}>
            {hours(value)}
          </Cell>
        );
      })}
      <Cell right className={goodput === null ? "text-faint" : ""}>{goodput === null ? "–" : percent(goodput)}</Cell>
      <Cell right className={row.queue[unit] === 0 ? "text-faint" : "text-muted"}>{hours(row.queue[unit])}</Cell>
    </tr>
  );
}

function Name({ row, by }: { row: UsageRow; by: By }) {
  if (by === "run") {
    return (
      <>
        <Link to="/runs/$runId" params={{ runId: row.key }}>
          {row.name}
        </Link>
        <span className="ml-2 font-mono text-sm font-normal text-faint">{row.key}</span>
      </>
    );
  }
  if (by === "pool") {
    return (
      <Link to="/pools/$name" params={{ name: row.key }} search={{ tab: "usage" }}>
        {row.name}
      </Link>
    );
  }
  return by === "day" ? dayName(row.key) : row.name;
}
