import type { By } from "@/api";

import { UsageSection, type UsageView } from "./usage-view";

const GROUPS: readonly (readonly [By, string])[] = [["day", "Day"], ["run", "Run"], ["project", "Project"]];

/** What the GPU-hours of one pool went into. */
export default function UsageTab({ pool, view, onView }: { pool: string; view: UsageView; onView: (change: { [K in keyof UsageView]: UsageView[K] | undefined }) => void }) {
  return <UsageSection pool={pool} view={view} onView={onView} groups={GROUPS} />;
}
