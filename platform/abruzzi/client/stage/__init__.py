"""What a stage process imports: its spec, inputs and outputs (`StageContext`), and telemetry that never hurts (`Reporter`). No torch here.

A program in another language needs none of this: it reads the JSON file in ABRUZZI_SPEC, posts to
`$ABRUZZI_URL/api/v1/attempts/$ABRUZZI_ATTEMPT/heartbeats` and `…/metrics` with the token in the file ABRUZZI_TOKEN, and ends with a code
of the contract (docs/how-to/bring-your-own-stage.md).
"""

from abruzzi.client.stage.context import LocalArtifact, StageContext
from abruzzi.client.stage.reporter import Reporter

__all__ = ["LocalArtifact", "Reporter", "StageContext"]
