import { hashKey, QueryCache, QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { Suspense, use } from "react";
import { Toaster } from "sonner";

import { sessionGetQueryKey } from "@/api/@tanstack/react-query.gen";
import { type Arrival, ArrivalContext } from "@/features/session/arrival";
import { connection } from "@/lib/connection";
import { isPassing, isUnauthenticated } from "@/lib/problem";
import { useTheme } from "@/lib/theme";

import { router } from "./router";

const RETRIES = 3;

const queryClient = new QueryClient({
  queryCache: new QueryCache({
    onError: (error, query) => {
      // The session itself is left alone: asking again because it was refused would never end.
      if (isUnauthenticated(error) && query.queryHash !== hashKey(sessionGetQueryKey())) void queryClient.invalidateQueries({ queryKey: sessionGetQueryKey() });
    },
  }),
  defaultOptions: {
    // The platform runs on this machine or in this network: whether the browser believes to be online says nothing.
    queries: { networkMode: "always", staleTime: 2000, retry: (failures, error) => isPassing(error) && failures < RETRIES, refetchOnWindowFocus: true },
    mutations: { networkMode: "always" },
  },
});

let wasLost = false;
connection.subscribe(() => {
  const isLost = connection.get().state === "lost";
  if (wasLost && !isLost) void queryClient.invalidateQueries();
  wasLost = isLost;
});

export function App({ arrival }: { arrival: Promise<Arrival> }) {
  const theme = useTheme();
  return (
    <QueryClientProvider client={queryClient}>
      <Suspense fallback={null}>
        <Arrived arrival={arrival} />
      </Suspense>
      <Toaster theme={theme} position="bottom-right" gap={8} toastOptions={{ className: "!text-[length:var(--text-base)] !font-sans" }} />
    </QueryClientProvider>
  );
}

function Arrived({ arrival }: { arrival: Promise<Arrival> }) {
  return (
    <ArrivalContext value={use(arrival)}>
      <RouterProvider router={router} />
    </ArrivalContext>
  );
}
