import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { Play } from "lucide-react";
import { lazy, Suspense, useState } from "react";

import { plan, recipesValidate, runsSubmit } from "@/api";
import { recipesListOptions, runsGetOptions } from "@/api/@tanstack/react-query.gen";
import { Button } from "@/components/ui/button";
import { Input, Select } from "@/components/ui/field";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { PlanSummary } from "@/features/recipes/plan-summary";
import { SHIPPED } from "@/features/recipes/shipped";
import { runKey } from "@/features/runs/queries";
import { usePageTitle } from "@/lib/page-title";
import { useSettled } from "@/lib/settled";

const Editor = lazy(() => import("@/features/recipes/editor"));
const route = getRouteApi("/runs/new");

/** A recipe, its mistakes at their lines, what it would take, and the button that starts it. */
export function NewRunPage() {
  usePageTitle("New run");
  const { from, recipe } = route.useSearch();
  const parent = useQuery({ ...runsGetOptions({ path: { run_id: from ?? "" } }), enabled: from !== undefined });
  const stored = useQuery(recipesListOptions({ query: { limit: 100 } }));
  if (from !== undefined && parent.error) return <div className="p-4"><ProblemNotice error={parent.error} /></div>;
  if ((from !== undefined && !parent.data) || stored.isPending) return <SkeletonLines count={12} className="p-4" />;
  const saved = (stored.data?.items ?? []).map(({ name, toml }) => ({ name, toml }));
  const offered = [...SHIPPED, ...saved.filter((one) => !SHIPPED.some((shipped) => shipped.toml === one.toml))];
  const chosen = parent.data?.recipe_toml ?? offered.find((one) => one.name === recipe)?.toml ?? offered[0]?.toml ?? "version = 1\n";
  return <Composer key={`${from ?? ""} ${recipe ?? ""}`} start={chosen} offered={offered} chosen={from ? "" : (recipe ?? offered[0]?.name ?? "")} />;
}

function Composer({ start, offered, chosen }: { start: string; offered: readonly { name: string; toml: string }[]; chosen: string }) {
  const navigate = route.useNavigate();
  const queryClient = useQueryClient();
  const [text, setText] = useState(start);
  const [name, setName] = useState("");
  const settled = useSettled(text);
  const body = { recipe_toml: settled, overrides: {} };
  const checked = useQuery({
    queryKey: ["validate", settled],
    queryFn: async ({ signal }) => (await recipesValidate({ body, signal, throwOnError: true })).data,
    staleTime: Infinity,
    placeholderData: (before) => before,
  });
  const isValid = checked.data?.valid ?? false;
  const planned = useQuery({
    queryKey: ["plan", settled],
    queryFn: async ({ signal }) => (await plan({ body, signal, throwOnError: true })).data,
    enabled: isValid && !checked.isPlaceholderData,
    staleTime: Infinity,
    placeholderData: (before) => before,
  });
  const submit = useMutation({
    mutationFn: async () => (await runsSubmit({ body: { recipe_toml: text, overrides: {}, name: name.trim() || null }, throwOnError: true })).data,
    onSuccess: (run) => {
      queryClient.setQueryData(runKey(run.id), run);
      void navigate({ to: "/runs/$runId", params: { runId: run.id } });
    },
  });
  const mistakes = checked.data?.errors ?? [];
  return (
    <form
      className="flex h-full flex-col"
      onSubmit={(event) => {
        event.preventDefault();
        submit.mutate();
      }}
    >
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg font-semibold">New run</h1>
        <Select label="Recipe to begin with" value={chosen} onChange={(event) => void navigate({ search: { recipe: event.target.value }, replace: true })}>
          {chosen === "" && <option value="">from another run</option>}
          {offered.map((one) => (
            <option key={one.name} value={one.name}>
              {one.name}
            </option>
          ))}
        </Select>
        <Input aria-label="Name of the run" placeholder="Name (optional)" value={name} maxLength={80} onChange={(event) => setName(event.target.value)} className="w-64" />
        <div className="flex-1" />
        <Button type="submit" look="primary" disabled={!isValid || text !== settled || submit.isPending}>
          <Play /> Submit
        </Button>
      </div>
      <div className="grid min-h-0 flex-1 grid-cols-[minmax(0,1fr)_24rem] max-lg:grid-cols-1 max-lg:grid-rows-[24rem_auto]">
        <div className="min-h-0 border-r border-line">
          <Suspense fallback={<SkeletonLines count={14} className="p-4" />}>
            <Editor text={text} label="Recipe in TOML" mistakes={mistakes} onChange={setText} />
          </Suspense>
        </div>
        {/* eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex -- a box that scrolls must be reachable by keyboard */}
        <aside tabIndex={0} aria-label="Check and plan" className="flex min-h-0 flex-col gap-3 overflow-auto p-4 -outline-offset-2">
          {checked.error && <ProblemNotice error={checked.error} />}
          {submit.error && <ProblemNotice error={submit.error} />}
          {mistakes.length > 0 && (
            <section aria-label="Mistakes" role="status">
              <h2 className="mb-2 font-medium text-bad">{mistakes.length === 1 ? "One mistake" : `${mistakes.length} mistakes`}</h2>
              <ul className="flex flex-col gap-2">
                {mistakes.map((mistake) => (
                  <li key={`${mistake.line} ${mistake.key} ${mistake.message}`} className="rounded-md border border-line bg-surface px-3 py-2">
                    <p className="flex justify-between gap-2 font-mono text-sm">
                      <span className="truncate">{mistake.key}</span>
                      <span className="shrink-0 text-muted">line {mistake.line}</span>
                    </p>
                    <p className="mt-0.5">{mistake.message}</p>
                    {mistake.hint && <p className="text-muted">{mistake.hint}</p>}
                  </li>
                ))}
              </ul>
            </section>
          )}
          {isValid && (
            <section aria-label="Plan">
              <h2 className="mb-2 font-medium">What it takes</h2>
              {planned.error ? <ProblemNotice error={planned.error} /> : planned.data ? <PlanSummary plan={planned.data} /> : <SkeletonLines count={6} />}
            </section>
          )}
        </aside>
      </div>
    </form>
  );
}
