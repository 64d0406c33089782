import { useState } from "react";

import type { RunOut } from "@/api";
import { Code } from "@/components/ui/code";
import { Dialog } from "@/components/ui/dialog";
import { Segments } from "@/components/ui/field";

type Language = "cli" | "curl" | "python";

/** What this page shows and does, for terminals and notebooks. The token is never in it. */
export function CopyAs({ run, stageId, open, onClose }: { run: RunOut; stageId: string | undefined; open: boolean; onClose: () => void }) {
  const [language, setLanguage] = useState<Language>("cli");
  return (
    <Dialog title="Copy as" about="With ABRUZZI_URL and ABRUZZI_TOKEN from your environment." open={open} onClose={onClose} wide>
      <Segments label="Language" value={language} onChange={setLanguage} options={[["cli", "CLI"], ["curl", "curl"], ["python", "Python"]]} />
      <div className="mt-3 flex flex-col gap-2">
        {snippets(language, run, stageId).map(([what, text]) => (
          <div key={what}>
            <p className="mb-1 text-sm text-muted">{what}</p>
            <Code text={text} />
          </div>
        ))}
      </div>
    </Dialog>
  );
}

function snippets(language: Language, run: RunOut, stageId: string | undefined): [string, string][] {
  const api = `${location.origin}/api/v1`;
  const curl = (path: string, more = "") => `curl -H "Authorization: Bearer $ABRUZZI_TOKEN" ${more}${api}/${path}`;
  const post = (path: string, body: string) => curl(path, `-H 'Content-Type: application/json' -d '${body}' `);
  const stage = stageId ?? "";
  if (language === "cli") {
    return [
      ["State and why", `abruzzi runs show ${run.id}\nabruzzi runs why ${run.id}`],
      ["Log", `abruzzi logs ${run.id} ${stage} --follow`.replace("  ", " ")],
      ["Metrics", `abruzzi metrics ${run.id}\nabruzzi metrics ${run.id} train/loss --json`],
      ["Cancel, retry", `abruzzi runs stop ${run.id}\nabruzzi runs retry ${run.id}`],
    ];
  }
  if (language === "curl") {
    return [
      ["State and why", `${curl(`runs/${run.id}`)}\n${curl(`runs/${run.id}/why`)}`],
      ["Loss", curl(`metrics?run=${run.id}&key=train/loss`).replace(/(http\S+)/, "'$1'")],
      ["Cancel", curl(`runs/${run.id}/cancel`, "-X POST ")],
      ["Retry", post(`runs/${run.id}/retry`, JSON.stringify({ stage_id: stage || null }))],
    ];
  }
  return [
    ["State and why", `from abruzzi.client import Client\n\nclient = Client()\nrun = client.runs.get("${run.id}")\nprint(run.state, client.runs.why(run.id).sentence)`],
    ["Loss", `[curve] = client.metrics.series("${run.id}", ["train/loss"])\ncurve.steps, curve.values`],
    ["Cancel, retry", `client.runs.cancel("${run.id}")\nclient.runs.retry("${run.id}"${stage ? `, "${stage}"` : ""})`],
  ];
}
