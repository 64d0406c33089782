import type { ArtifactOut } from "@/api";
import { Empty, ProblemNotice } from "@/components/ui/notice";
import { SkeletonLines } from "@/components/ui/progress";

import { costsOf } from "./cost-shape";
import { useFacts } from "./queries";
import { RoleCosts } from "./role-costs";

/** What making it cost, by role. */
export default function Cost({ artifact }: { artifact: ArtifactOut }) {
  const calls = useFacts(artifact.id, "calls");
  if (calls.error) return <div className="p-4"><ProblemNotice error={calls.error} /></div>;
  if (!calls.data) return <SkeletonLines count={4} className="p-4" />;
  const roles = costsOf(calls.data);
  if (roles.length === 0) return <Empty title="Nobody was asked">No role made a call.</Empty>;
  return (
    <div className="flex flex-col gap-3 py-3">
      <p className="max-w-3xl px-4 text-muted">
        Over all attempts of the stage. Endpoint time adds up calls that ran beside each other. Each call is kept with its question and answer under Calls.
      </p>
      <RoleCosts roles={roles} label="Cost by role" />
    </div>
  );
}
