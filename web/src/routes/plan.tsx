import { useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { lazy, Suspense, useState } from "react";

import { plan } from "@/api";
import { recipesListOptions } from "@/api/@tanstack/react-query.gen";
import { Input, Select, Toggle } from "@/components/ui/field";
import { ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { Gantt } from "@/features/plan/gantt";
import { LayoutFacts } from "@/features/plan/layout-facts";
import { type Layout, readLayouts } from "@/features/plan/layout-shape";
import { RankTable } from "@/features/plan/rank-table";
import { SweepTable } from "@/features/plan/sweep-table";
import { SHIPPED } from "@/features/recipes/shipped";
import { usePageTitle } from "@/lib/page-title";
import { useSettled } from "@/lib/settled";

const Editor = lazy(() => import("@/features/recipes/editor"));
const route = getRouteApi("/plan");
const FIRST = "k2";

/** A recipe's training stages at full width: memory by rank, the schedule as a picture, time and cost, and other layouts of the same ranks. */
export function PlanPage() {
  usePageTitle("Plan");
  const { recipe = FIRST } = route.useSearch();
  const stored = useQuery(recipesListOptions({ query: { limit: 100 } }));
  if (stored.isPending) return <SkeletonLines count={12} className="p-4" />;
  const saved = (stored.data?.items ?? []).map(({ name, toml }) => ({ name, toml }));
  const offered = [...SHIPPED, ...saved.filter((one) => !SHIPPED.some((shipped) => shipped.name === one.name))];
  const chosen = offered.find((one) => one.name === recipe) ?? offered[0];
  return <Planner key={chosen?.name ?? ""} start={chosen?.toml ?? "version = 1\n"} chosen={chosen?.name ?? ""} names={offered.map((one) => one.name)} />;
}

function Planner({ start, chosen, names }: { start: string; chosen: string; names: readonly string[] }) {
  const navigate = route.useNavigate();
  const { nodes, price, sweep = false } = route.useSearch();
  const [text, setText] = useState(start);
  const [isOpen, setIsOpen] = useState(false);
  const [recipe, width, cost] = [useSettled(text), useSettled(nodes), useSettled(price)];
  const body = { recipe_toml: recipe, overrides: {}, nodes: width ?? null, price: cost ?? null, sweep, timeline: true };
  const planned = useQuery({
    queryKey: ["plan", body],
    queryFn: async ({ signal }) => (await plan({ body, signal, throwOnError: true })).data,
    staleTime: Infinity,
    placeholderData: (before) => before,
    retry: false,
  });
  const layouts = readLayouts(planned.data);
  return (
    <div className="flex flex-col pb-8">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg font-semibold">Plan</h1>
        <Select label="Recipe" value={chosen} onChange={(event) => void navigate({ search: (old) => ({ ...old, recipe: event.target.value }), replace: true })}>
          {names.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </Select>
        <Amount label="Nodes" value={nodes} onChange={(value) => void navigate({ search: (old) => ({ ...old, nodes: value === undefined ? undefined : Math.min(512, Math.max(1, Math.round(value))) }), replace: true })} />
        <Amount label="Price of a GPU-hour" value={price} onChange={(value) => void navigate({ search: (old) => ({ ...old, price: value }), replace: true })} />
        <Toggle label="Rank other layouts of the same ranks" pressed={sweep} onChange={(pressed) => void navigate({ search: (old) => ({ ...old, sweep: pressed || undefined }), replace: true })}>
          Sweep
        </Toggle>
        <Toggle label="Show the recipe" pressed={isOpen} onChange={setIsOpen}>
          Recipe
        </Toggle>
        <span role="status" className="text-sm text-muted">{planned.isFetching ? "Planning…" : ""}</span>
      </div>
      {isOpen && (
        <div className="h-80 border-b border-line">
          <Suspense fallback={<SkeletonLines count={10} className="p-4" />}>
            <Editor text={text} label="Recipe in TOML" mistakes={[]} onChange={setText} />
          </Suspense>
        </div>
      )}
      {planned.error && <div className="p-4"><ProblemNotice error={planned.error} /></div>}
      {!planned.data && !planned.error && <SkeletonLines count={12} className="p-4" />}
      {planned.data !== undefined && layouts.length === 0 && <p className="p-4 text-muted">No stage of this recipe trains a model whose size is known beforehand.</p>}
      {layouts.map((layout) => (
        <Stage key={layout.stage} layout={layout} />
      ))}
    </div>
  );
}

function Stage({ layout }: { layout: Layout }) {
  const width = layout.nodes > 1 ? `${layout.nodes} nodes of ${layout.ranksPerNode}: ` : "";
  return (
    <section aria-label={`Plan of ${layout.stage}`} className="flex flex-col gap-4 pt-4">
      <h2 className="flex flex-wrap items-baseline gap-x-3 px-4 font-semibold">
        {layout.stage}
        <span className="font-normal text-muted">
          {width}PP {layout.pp} × {layout.vpp}, EP {layout.ep}, {layout.ranks} {layout.ranks === 1 ? "rank" : "ranks"}
        </span>
      </h2>
      {layout.refusals.map((reason) => (
        <p key={reason} role="alert" className="mx-4 rounded-md bg-bad-soft px-3 py-2 first-letter:uppercase">
          {reason}
          {layout.wouldFit && <span className="block text-muted">What would fit: {layout.wouldFit}.</span>}
        </p>
      ))}
      {layout.byRank.length > 0 && (
        <>
          <div className="px-4"><LayoutFacts layout={layout} /></div>
          {layout.timeline && layout.pp > 1 && <div className="px-4"><Gantt title="Planned schedule" timeline={layout.timeline} chunks={layout.vpp} /></div>}
          <RankTable layout={layout} />
        </>
      )}
      {layout.sweep && <SweepTable layout={layout} sweep={layout.sweep} />}
      <p className="px-4 text-sm text-faint">
        Each rank is one {layout.device}: {layout.source}.
      </p>
    </section>
  );
}

function Amount({ label, value, onChange }: { label: string; value: number | undefined; onChange: (value: number | undefined) => void }) {
  return (
    <label className="flex items-center gap-1.5 text-sm text-muted">
      {label}
      <Input
        type="number"
        min={0}
        step="any"
        defaultValue={value ?? ""}
        className="w-20"
        onChange={(event) => {
          const typed = event.target.valueAsNumber;
          onChange(Number.isFinite(typed) && typed >= 0 ? typed : undefined);
        }}
      />
    </label>
  );
}
