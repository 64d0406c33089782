"""What a stage process imports: its spec, inputs and outputs (`StageContext`), and telemetry that never hurts (`Reporter`). No torch here.

    context = StageContext.from_env()
    context.install_signals()
    with Reporter.from_context(context) as reporter:
        reporter.heartbeat(0, "setup", total_steps=100)
        reporter.log({"train/loss": 2.1}, step=1)
        context.commit(ArtifactKind.FILES, "result", {"result.json": path})

A program in another language needs none of this: it reads the JSON file in ABRUZZI_SPEC, posts to
`$ABRUZZI_URL/api/v1/attempts/$ABRUZZI_ATTEMPT/heartbeats` (abruzzi.contracts.metric.Heartbeat), `…/metrics` (MetricBatch) and `…/artifacts`
with the token in the file ABRUZZI_TOKEN as `Authorization: Bearer`, and ends with a code of the contract.
"""

from abruzzi.client.stage.context import LocalArtifact, StageContext
from abruzzi.client.stage.exits import Preempted, exit_code_of
from abruzzi.client.stage.reporter import Reporter
from abruzzi.client.stage.reviews import read_reviews
from abruzzi.client.stage.rubrics import read_rubrics

__all__ = ["LocalArtifact", "Preempted", "Reporter", "StageContext", "exit_code_of", "read_reviews", "read_rubrics"]
