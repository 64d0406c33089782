import { Link } from "@tanstack/react-router";
import { X } from "lucide-react";

import type { RunOut } from "@/api";
import { IconButton } from "@/components/ui/button";
import { Cell, Head, Table } from "@/components/ui/table";
import { strokesOf } from "@/features/metrics/palette";
import { fixed, signed, span } from "@/lib/format";
import { useNow } from "@/lib/now";

import { StateLabel } from "./state-mark";
import { tookSeconds } from "./states";

const NAMES: Readonly<Record<string, string>> = {
  "train/loss": "Loss", "valid/loss": "Validation loss", bits_per_byte: "Bits per byte", ngram_bits_per_byte: "n-gram bits per byte", cloze_accuracy: "Cloze accuracy",
};

const MANIFOLD = 9;

type Props = { runs: readonly RunOut[]; base: string; onBase: (id: string) => void; onRemove: (id: string) => void };

/** The figures that people look for first, each with its difference to the baseline. */
export function HeadlineTable({ runs, base, onBase, onRemove }: Props) {
  const now = useNow();
  const strokes = strokesOf(runs.map((run) => run.id));
  const keys = [...new Set(runs.flatMap((run) => Object.keys(run.headline)))].sort((a, b) => Math.sign(rank(a) - rank(b)) || a.localeCompare(b));
  const baseline = runs.find((run) => run.id === base);
  const baseTook = baseline ? tookSeconds(baseline, now) : null;
  return (
    <Table label="Headline figures">
      <thead>
        <tr>
          <Head className="w-20">Baseline</Head>
          <Head>Run</Head>
          <Head>State</Head>
          {keys.map((key) => (
            <Head key={key} right className="pr-[4.625rem]">
              {NAMES[key] ?? key}
            </Head>
          ))}
          <Head right className="pr-[4.625rem]">Took</Head>
          <Head className="w-px">
            <span className="sr-only">Actions</span>
          </Head>
        </tr>
      </thead>
      <tbody>
        {runs.map((run) => {
          const { color, dash } = strokes.get(run.id) ?? { color: "", dash: [] };
          const took = tookSeconds(run, now);
          const isBase = run.id === base;
          return (
            <tr key={run.id}>
              <Cell>
                <input type="radio" name="baseline" checked={isBase} onChange={() => onBase(run.id)} aria-label={`${run.name} is the baseline`} className="size-3.5 accent-accent-fill align-middle" />
              </Cell>
              <Cell>
                <span className="inline-flex items-center gap-2 align-middle">
                  <svg width="20" height="6" aria-hidden>
                    <line x1="0" y1="3" x2="20" y2="3" stroke={color} strokeWidth="2.5" strokeDasharray={dash.join(" ") || undefined} />
                  </svg>
                  <Link to="/runs/$runId" params={{ runId: run.id }} className="font-medium hover:text-accent">
                    {run.name}
                  </Link>
                  <span className="font-mono text-xs text-faint">{run.id}</span>
                </span>
              </Cell>
              <Cell>
                <StateLabel state={run.state} />
              </Cell>
              {keys.map((key) => (
                <Cell key={key} right>
                  {fixed(run.headline[key])}
                  <Delta value={run.headline[key]} base={isBase ? undefined : baseline?.headline[key]} />
                </Cell>
              ))}
              <Cell right className="text-muted">
                {took === null ? "–" : span(took)}
                <Delta value={took ?? undefined} base={isBase ? undefined : (baseTook ?? undefined)} />
              </Cell>
              <Cell>
                <IconButton label={`Take ${run.name} out of the comparison`} onClick={() => onRemove(run.id)}>
                  <X />
                </IconButton>
              </Cell>
            </tr>
          );
        })}
      </tbody>
    </Table>
  );
}

/** Known keys first, in the order above. */
function rank(key: string): number {
  const at = Object.keys(NAMES).indexOf(key);
  return at < 0 ? Infinity : at;
}

/** In percent of the baseline; which direction is better depends on the metric, so it has no colour. */
function Delta({ value, base }: { value: number | undefined; base: number | undefined }) {
  const share = value === undefined || base === undefined || base === 0 ? null : (value - base) / Math.abs(base);
  const text = share === null ? "" : share > MANIFOLD ? `× ${(share + 1).toFixed(0)}` : signed(share, `${Math.abs(share * 100).toFixed(1)} %`);
  return <span className="ml-2 inline-block w-14 text-sm text-muted">{text}</span>;
}
