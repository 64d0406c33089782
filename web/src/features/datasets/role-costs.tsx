import { Cell, Head, Table } from "@/components/ui/table";
import { compact, span, whole } from "@/lib/format";

import type { RoleCost } from "./cost-shape";
import { StandinTag } from "./marks";

/** What each role cost: calls, tokens, time, what the cache spared, what was rejected. */
export function RoleCosts({ roles, label }: { roles: readonly RoleCost[]; label: string }) {
  return (
    <Table label={label}>
      <thead>
        <tr>
          <Head>Role</Head>
          <Head>Played by</Head>
          <Head right>Calls</Head>
          <Head right>Prompt tokens</Head>
          <Head right>Answer tokens</Head>
          <Head right>Endpoint time</Head>
          <Head right>From the cache</Head>
          <Head right>Retries</Head>
          <Head right>Rejected</Head>
        </tr>
      </thead>
      <tbody>
        {roles.map((role) => (
          <tr key={role.name}>
            <Cell className="font-medium">{role.name.replaceAll("_", " ")}</Cell>
            <Cell className="text-muted">
              <span className="inline-flex flex-wrap items-center gap-2">
                {role.generators.join(", ") || "–"}
                {role.teacher === "standin" && <StandinTag />}
              </span>
            </Cell>
            <Cell right>{whole(role.calls)}</Cell>
            <Cell right>{compact(role.promptTokens)}</Cell>
            <Cell right>{compact(role.answerTokens)}</Cell>
            <Cell right>{span(role.seconds)}</Cell>
            <Cell right>{whole(role.cacheHits)}</Cell>
            <Cell right title={role.retryReasons}>{whole(role.retries)}</Cell>
            <Cell right className={role.rejected > 0 ? "text-bad" : ""} title={role.rejectedReasons}>
              {whole(role.rejected)}
            </Cell>
          </tr>
        ))}
      </tbody>
    </Table>
  );
}
