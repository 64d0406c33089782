import { getRouteApi } from "@tanstack/react-router";

import type { By } from "@/api";
import { UsageSection } from "@/features/usage/usage-view";
import { usePageTitle } from "@/lib/page-title";

const route = getRouteApi("/usage");
const GROUPS: readonly (readonly [By, string])[] = [["project", "Project"], ["pool", "Pool"], ["run", "Run"], ["day", "Day"]];

/** What the GPU-hours of all pools went into: of the caller's project, for the platform's admins of all. */
export function UsagePage() {
  usePageTitle("Usage");
  const search = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <div className="flex flex-col pb-8">
      <div className="border-b border-line px-4 py-2.5">
        <h1 className="text-lg leading-7 font-semibold">Usage</h1>
      </div>
      <UsageSection view={search} onView={(change) => void navigate({ search: (old) => ({ ...old, ...change }), replace: true })} groups={GROUPS} />
    </div>
  );
}
