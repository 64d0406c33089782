import { isRecord } from "@/lib/unknown";

/** Any JSON for people: names beside values, texts with their line breaks, long parts folded. */
export function JsonView({ value }: { value: unknown }) {
  return (
    <div className="px-4 py-3">
      <Value value={value} depth={0} />
    </div>
  );
}

const OPEN_DEPTH = 2;

export function Value({ value, depth = 0 }: { value: unknown; depth?: number }) {
  if (Array.isArray(value)) {
    if (value.length === 0) return <span className="text-faint">none</span>;
    if (value.every((item) => typeof item !== "object" || item === null)) return <span className="break-words">{value.map(String).join(", ")}</span>;
    return <Entries entries={value.map((item, i): [string, unknown] => [String(i + 1), item])} depth={depth} title={`${value.length} items`} />;
  }
  if (isRecord(value)) {
    const entries = Object.entries(value);
    return entries.length === 0 ? <span className="text-faint">nothing</span> : <Entries entries={entries} depth={depth} title={`${entries.length} values`} />;
  }
  if (value === null || value === undefined) return <span className="text-faint">–</span>;
  return typeof value === "string" ? <span className="break-words whitespace-pre-wrap">{value}</span> : <span>{String(value)}</span>;
}

function Entries({ entries, depth, title }: { entries: readonly [string, unknown][]; depth: number; title: string }) {
  const list = (
    <dl className="grid grid-cols-[minmax(4rem,max-content)_minmax(0,1fr)] gap-x-3 gap-y-0.5 text-sm">
      {entries.map(([name, item]) => (
        <div key={name} className="contents">
          <dt className="max-w-48 truncate text-muted" title={name}>
            {name}
          </dt>
          <dd className="min-w-0">
            <Value value={item} depth={depth + 1} />
          </dd>
        </div>
      ))}
    </dl>
  );
  if (depth < OPEN_DEPTH) return list;
  return (
    <details>
      <summary className="text-sm text-muted">{title}</summary>
      {list}
    </details>
  );
}
