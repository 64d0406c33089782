import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { environmentsListOptions } from "@/api/@tanstack/react-query.gen";
import { Input } from "@/components/ui/field";
import { Empty, ProblemNotice, Stale } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";
import { EnvironmentsTable } from "@/features/environments/environments-table";
import { usePageTitle } from "@/lib/page-title";

const LOOK_MILLISECONDS = 10_000;

/** What there is to train in, and what the project's stages have made of it. */
export function EnvironmentsPage() {
  usePageTitle("Environments");
  const [text, setText] = useState("");
  const { data, error } = useQuery({ ...environmentsListOptions(), refetchInterval: LOOK_MILLISECONDS });
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = (data?.items ?? []).filter((one) => {
    const told = [one.environment, one.summary, ...one.families].join(" ").toLowerCase();
    return words.every((word) => told.includes(word));
  });
  return (
    <div className="flex flex-col pb-8">
      <div className="flex flex-wrap items-center gap-2 border-b border-line px-4 py-2.5">
        <h1 className="mr-2 text-lg leading-7 font-semibold">Environments</h1>
        <Input aria-label="Filter" placeholder="Name, family or words" value={text} className="w-56" onChange={(event) => setText(event.target.value)} />
        <div className="flex-1" />
        <Stale error={data ? error : null} />
      </div>
      {error && !data && <div className="p-4"><ProblemNotice error={error} /></div>}
      {!data && !error && <SkeletonLines count={8} className="p-4" />}
      {data && found.length === 0 && <Empty title="None of them">Another word finds more.</Empty>}
      {found.length > 0 && <EnvironmentsTable environments={found} />}
    </div>
  );
}
