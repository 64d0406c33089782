import { useQuery } from "@tanstack/react-query";

import { sessionGetOptions } from "@/api/@tanstack/react-query.gen";

/** The project whose admins are the platform's. */
const PLATFORM_PROJECT = "default";

/** Whether whoever is signed in is an administrator of the platform. For what is offered; the API decides what is done. */
export function useMayManagePlatform(): boolean {
  const { data } = useQuery({ ...sessionGetOptions(), staleTime: 60_000 });
  return data?.role === "admin" && data.projects.some((project) => project.id === PLATFORM_PROJECT);
}

/** Whether whoever is signed in is shown what red teams asked, and decides about it. */
export const useMayReadAttacks = (): boolean => useIsMaintainer();

/** Whether whoever is signed in may let a stage start although its gate does not hold. */
export const useMayOverrideGates = (): boolean => useIsMaintainer();

function useIsMaintainer(): boolean {
  const { data } = useQuery({ ...sessionGetOptions(), staleTime: 60_000 });
  return data?.role === "admin" || data?.role === "maintainer";
}
