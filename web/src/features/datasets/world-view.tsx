import { cn } from "@/lib/cn";
import { written } from "@/lib/unknown";

import type { Change } from "./trajectory-shape";

/** What the conversation changed in its world: each row, each field, before and after. */
export function World({ changes, digests: [before, after] }: { changes: readonly Change[]; digests: readonly [string, string] }) {
  return (
    <section aria-label="World" className="flex flex-col gap-1.5">
      <h3 className="font-medium">What changed in the world</h3>
      {changes.length === 0 ? <p className="text-muted">Nothing.</p> : <Changes changes={changes} label="World before and after" />}
      {before && (
        <p className="font-mono text-sm text-muted">
          {short(before)} {before === after ? "before and after" : `→ ${short(after)}`}
        </p>
      )}
    </section>
  );
}

export function Changes({ changes, label }: { changes: readonly Change[]; label: string }) {
  return (
    <ul aria-label={label} className="flex flex-col gap-1.5 text-sm">
      {changes.map((change) => {
        const kind = change.before === null ? "added" : change.after === null ? "removed" : "changed";
        const names = Object.keys({ ...change.before, ...change.after });
        return (
          <li key={`${change.entity} ${change.id}`} className="rounded-md border border-line px-2 py-1">
            <span className="font-medium">{change.entity}</span> <span className="text-muted">{change.id}</span>{" "}
            <span className={cn({ added: "text-ok", removed: "text-bad", changed: "text-warn" }[kind])}>{kind}</span>
            <dl className="grid grid-cols-[minmax(6rem,max-content)_minmax(0,1fr)] gap-x-3 font-mono">
              {names.map((name) => (
                <div key={name} className="contents">
                  <dt className="text-muted">{name}</dt>
                  <dd className="min-w-0 break-words">
                    {change.before && <del className={cn("decoration-bad", change.after && "text-muted")}>{written(change.before[name])}</del>}
                    {change.before && change.after && <span className="text-faint"> → </span>}
                    {change.after && <ins className="text-ok no-underline">{written(change.after[name])}</ins>}
                  </dd>
                </div>
              ))}
            </dl>
          </li>
        );
      })}
    </ul>
  );
}

const short = (digest: string): string => digest.replace("sha256:", "").slice(0, 12);
