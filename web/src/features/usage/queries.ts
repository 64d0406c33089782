import { useQuery } from "@tanstack/react-query";

import type { By, UsageGetData } from "@/api";
import { usageGetOptions } from "@/api/@tanstack/react-query.gen";

import type { DayRange } from "./range";

const LOOK_MILLISECONDS = 30_000;

export type UsageQuery = NonNullable<UsageGetData["query"]>;

export const usageQuery = ({ from, to }: DayRange, by: By, pool: string | undefined): UsageQuery => ({ from, to, by, ...(pool ? { pool } : {}) });

export const useUsage = (range: DayRange, by: By, pool: string | undefined) =>
  useQuery({ ...usageGetOptions({ query: usageQuery(range, by, pool) }), refetchInterval: LOOK_MILLISECONDS, placeholderData: (before) => before });

/** The same numbers as a file; the session's cookie opens it. */
export function csvAddress(range: DayRange, by: By, pool: string | undefined): string {
  const query = usageQuery(range, by, pool);
  return `/api/v1/usage?${new URLSearchParams({ ...(query as Record<string, string>), format: "csv" }).toString()}`;
}
