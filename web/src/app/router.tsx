import { createRootRoute, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";

import { Button } from "@/components/ui/button";
import { Empty, ProblemNotice } from "@/components/ui/notice";

import { readCompareSearch, readDataSearch, readDatasetSearch, readEvaluationSearch, readEvaluationsSearch, readNewRunSearch, readPlanSearch, readPoolSearch, readRubricsSearch, readRunSearch, readRunsSearch, readUsageSearch } from "./search";
import { Shell } from "./shell";

const rootRoute = createRootRoute({
  component: Shell,
  notFoundComponent: () => <Empty title="There is no such page">Press ⌘K or Ctrl-K to go where you wanted.</Empty>,
  errorComponent: ({ error, reset }) => (
    <div className="mx-auto max-w-xl p-8">
      <ProblemNotice error={error}>
        <Button className="mt-2" onClick={reset}>
          Try again
        </Button>
      </ProblemNotice>
    </div>
  ),
});

const homeRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/",
  beforeLoad: () => {
    throw redirect({ to: "/runs", replace: true });
  },
});

const runsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/runs",
  validateSearch: readRunsSearch,
  component: lazyRouteComponent(() => import("@/routes/runs"), "RunsPage"),
});

const newRunRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/runs/new",
  validateSearch: readNewRunSearch,
  component: lazyRouteComponent(() => import("@/routes/new-run"), "NewRunPage"),
});

const planRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/plan",
  validateSearch: readPlanSearch,
  component: lazyRouteComponent(() => import("@/routes/plan"), "PlanPage"),
});

const runRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/runs/$runId",
  validateSearch: readRunSearch,
  component: lazyRouteComponent(() => import("@/routes/run"), "RunPage"),
});

const poolsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/pools",
  component: lazyRouteComponent(() => import("@/routes/pools"), "PoolsPage"),
});

const poolRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/pools/$name",
  validateSearch: readPoolSearch,
  component: lazyRouteComponent(() => import("@/routes/pool"), "PoolPage"),
});

const usageRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/usage",
  validateSearch: readUsageSearch,
  component: lazyRouteComponent(() => import("@/routes/usage"), "UsagePage"),
});

const dataRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/data",
  validateSearch: readDataSearch,
  component: lazyRouteComponent(() => import("@/routes/data"), "DataPage"),
});

const datasetRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/data/$artifactId",
  validateSearch: readDatasetSearch,
  component: lazyRouteComponent(() => import("@/routes/dataset"), "DatasetPage"),
});

const environmentsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/environments",
  component: lazyRouteComponent(() => import("@/routes/environments"), "EnvironmentsPage"),
});

const evaluationsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/evaluations",
  validateSearch: readEvaluationsSearch,
  component: lazyRouteComponent(() => import("@/routes/evaluations"), "EvaluationsPage"),
});

const evaluationRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/evaluations/$evaluationId",
  validateSearch: readEvaluationSearch,
  component: lazyRouteComponent(() => import("@/routes/evaluation"), "EvaluationPage"),
});

const rubricsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/rubrics",
  validateSearch: readRubricsSearch,
  component: lazyRouteComponent(() => import("@/routes/rubrics"), "RubricsPage"),
});

const compareRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/compare",
  validateSearch: readCompareSearch,
  component: lazyRouteComponent(() => import("@/routes/compare"), "ComparePage"),
});

const tokensRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/tokens",
  component: lazyRouteComponent(() => import("@/routes/tokens"), "TokensPage"),
});

export const router = createRouter({
  routeTree: rootRoute.addChildren([homeRoute, runsRoute, newRunRoute, planRoute, runRoute, dataRoute, datasetRoute, evaluationsRoute, evaluationRoute, environmentsRoute, rubricsRoute, poolsRoute, poolRoute, usageRoute, compareRoute, tokensRoute]),
  defaultPreload: "intent",
  defaultPreloadStaleTime: 0,
  scrollRestoration: true,
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
