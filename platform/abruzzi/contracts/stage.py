"""The stage contract (design section 6): what any image needs to know to be a stage.

The resolved spec is a JSON file whose path is in `ABRUZZI_SPEC`. Everything else comes in the environment below.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from abruzzi.contracts.artifact import ArtifactRef
from abruzzi.contracts.states import StageKind

ENV_SPEC = "ABRUZZI_SPEC"
"""Path of the resolved stage spec, JSON."""
ENV_URL = "ABRUZZI_URL"
ENV_TOKEN = "ABRUZZI_TOKEN"
"""Path of a file that holds the attempt's token. (For people's commands the same name may hold the token itself.)"""
ENV_RUN = "ABRUZZI_RUN"
ENV_STAGE = "ABRUZZI_STAGE"
ENV_ATTEMPT = "ABRUZZI_ATTEMPT"
ENV_EPOCH = "ABRUZZI_EPOCH"
ENV_RESUME = "ABRUZZI_RESUME"
"""Key of the checkpoint manifest to resume from, or empty."""
ENV_STORE_CREDENTIALS = "ABRUZZI_STORE_CREDENTIALS"
"""Path of a JSON file with the object store's credentials of this attempt; rewritten before they expire. Absent: the environment holds them."""
ENV_ATTEMPT_DIR = "ABRUZZI_ATTEMPT_DIR"
"""A writable directory that outlives the process: spool, heartbeat files, stacks."""
ENV_SANDBOXES_URL = "ABRUZZI_SANDBOXES_URL"
"""Where the service of sandbox pods answers (contracts/sandbox.py); absent: there is none, and a box is held by the stage's own machine."""
ENV_SECRET_DIR = "ABRUZZI_SECRET_DIR"
"""Of a pod: the mounted Secret, in which the attempt's token lies, too."""


class DirectoryStore(BaseModel):
    """Object store in a directory (embedded mode)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["directory"] = "directory"
    root: str


class S3Store(BaseModel):
    """S3-compatible object store. Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or from the file
    in ABRUZZI_STORE_CREDENTIALS, never from the spec."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["s3"] = "s3"
    endpoint: str
    bucket: str
    region: str = "us-east-1"
    secure: bool = True


StoreConfig = DirectoryStore | S3Store


class StageSpec(BaseModel):
    """One attempt of one stage, resolved: everything it may depend on. Deterministic: the same spec gives the same output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    project_id: str
    run_id: str
    stage_id: str
    attempt_id: str
    """`<run>-<stage>-<number>`; the workload's name is `abruzzi-` and this."""
    epoch: int = Field(ge=1)
    kind: StageKind
    config: dict[str, Any]
    """The stage's table of the recipe, resolved and validated (abruzzi.contracts.recipe, class by kind)."""
    inputs: dict[str, ArtifactRef] = Field(default_factory=dict)
    store: StoreConfig = Field(discriminator="kind")
    output_prefix: str
    """`projects/<project>/runs/<run>/<stage>/`: the only prefix that this attempt may write below."""
    resume: ArtifactRef | None = None
    data_step: int | None = None
    """The first batch to be shown is that of this step of an undisturbed run: training diverged with those before it. None: as `resume` says."""
    world_size: int = Field(default=1, ge=1)
    seed: int = 0

    def digest(self) -> str:
        """Hash over everything that says what to compute: a second create with another digest is a conflict, never an adoption."""
        return "sha256:" + hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def workload_name(attempt_id: str) -> str:
    return f"abruzzi-{attempt_id}"


def attempt_id(run_id: str, stage_id: str, number: int) -> str:
    return f"{run_id}-{stage_id}-{number}"
