import { useMemo } from "react";

import type { MetricKeyOut } from "@/api";

import { liveCostsOf } from "./cost-shape";
import { RoleCosts } from "./role-costs";

/** What the roles of a stage have cost so far, while it runs; nothing for stages without roles. */
export function LiveCosts({ metrics }: { metrics: readonly MetricKeyOut[] }) {
  const roles = useMemo(() => liveCostsOf(metrics), [metrics]);
  if (roles.length === 0) return null;
  return (
    <section aria-label="Cost" className="rounded-lg border border-line bg-surface pb-1">
      <h2 className="px-4 pt-2 font-medium">Cost by role so far</h2>
      <RoleCosts roles={roles} label="Cost by role so far" />
    </section>
  );
}
