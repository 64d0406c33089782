import { Link } from "@tanstack/react-router";
import { lazy, Suspense } from "react";

import type { RunOut } from "@/api";
import { buttonClass } from "@/components/ui/button";
import { CopyButton } from "@/components/ui/copy";
import { SkeletonLines } from "@/components/ui/progress";

const Editor = lazy(() => import("./editor"));

/** The recipe as it ran. */
export default function RecipeTab({ run }: { run: RunOut }) {
  return (
    <div className="flex h-full min-h-96 flex-col">
      <div className="flex items-center gap-2 border-b border-line px-4 py-2">
        <span className="text-muted">As submitted; values given with --set are written into it.</span>
        <div className="flex-1" />
        <CopyButton text={run.recipe_toml} label="Copy the recipe" />
        <Link to="/runs/new" search={{ from: run.id }} className={buttonClass()}>
          New run from it
        </Link>
      </div>
      <div className="min-h-0 flex-1">
        <Suspense fallback={<SkeletonLines count={12} className="p-4" />}>
          <Editor text={run.recipe_toml} label="Recipe" />
        </Suspense>
      </div>
    </div>
  );
}
