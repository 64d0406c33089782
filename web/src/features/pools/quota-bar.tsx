import { type Quota, quotaSentence, sharesOf } from "./quota";

/** Use of one resource against its quota; what is borrowed is hatched, and a line shows where the pool's own quota ends. */
export function QuotaBar({ quota }: { quota: Quota }) {
  const shares = sharesOf(quota);
  const said = `${quota.title}: ${quotaSentence(quota)}`;
  return (
    <div role="img" aria-label={said} title={said} className="relative flex h-1.5 w-full rounded-full bg-line">
      <span className="h-full rounded-l-full bg-accent" style={{ width: `${shares.own * 100}%` }} />
      <span className="hatched h-full rounded-r-full text-warn" style={{ width: `${shares.borrowed * 100}%` }} />
      {shares.quota > 0 && shares.quota < 1 && <span className="absolute -inset-y-1 w-0.5 -translate-x-1/2 bg-muted" style={{ left: `${shares.quota * 100}%` }} />}
    </div>
  );
}

/** The bar below its figures. */
export function QuotaMeter({ quota, titled = false }: { quota: Quota; titled?: boolean }) {
  const { title, used, borrowed, quota: own, most, format } = quota;
  return (
    <div className="flex min-w-32 flex-col gap-1.5">
      <p className="flex items-baseline gap-x-1.5 text-sm whitespace-nowrap" aria-hidden>
        {titled && <span className="font-medium">{title}</span>}
        <span>
          {format(used)}
          <span className="text-muted"> of {format(own)}</span>
        </span>
        <span className="flex-1" />
        {borrowed > 0 ? <span className="text-warn">{format(borrowed)} borrowed</span> : most !== null && most > own && <span className="text-faint">to {format(most)}</span>}
      </p>
      <QuotaBar quota={quota} />
    </div>
  );
}
