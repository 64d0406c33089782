import { useQuery } from "@tanstack/react-query";

import { poolsGetOptions, poolsListOptions, poolsQueueOptions } from "@/api/@tanstack/react-query.gen";

/** The controllers write what they see every ten seconds; runs come and go in between. */
const LOOK_MILLISECONDS = 3000;

export const usePools = () => useQuery({ ...poolsListOptions(), refetchInterval: LOOK_MILLISECONDS });

export const usePool = (name: string) => useQuery({ ...poolsGetOptions({ path: { name } }), refetchInterval: LOOK_MILLISECONDS });

export const useQueue = (name: string) => useQuery({ ...poolsQueueOptions({ path: { name } }), refetchInterval: LOOK_MILLISECONDS });
