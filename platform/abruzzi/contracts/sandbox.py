"""What a stage and the service of sandbox pods say to each other (operators' `sandboxes`, jobs' `sandbox/pods`).

    POST /v1/sandboxes        with the attempt's token and a `SandboxIn`, or nothing → 201 and a `SandboxOut`, or the reason as text: 503, none is to be had;
                              403, an image that stages may not name; 422, no `SandboxIn`
    POST /v1/sandboxes/{id}   once: what the request's body says reaches the standard input of `INTERPRETER` in the pod, while its standard output comes
                              back as the answer's body. When either ends, or the connection breaks, the pod is destroyed. The body ends well where what
                              runs in the pod has ended, however that was; it is broken off where the cluster took the pod away: no program can say so.

An id that nobody uses for `CLAIM_SECONDS` is destroyed, too. The service knows nothing of what is said inside.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SANDBOXES_PATH = "/v1/sandboxes"
CLAIM_SECONDS = 30.0
SILENT_SECONDS = 60.0
"""A request whose body brings nothing for so long is taken for broken: its sender says something more often."""
BOOT = """
import os
def take(size):
    data = b""
    while len(data) < size and (more := os.read(0, size - len(data))):
        data += more
    return data
exec(compile(take(int(take(8))), "inside", "exec"))
"""
"""Eight digits are a number of bytes; so many follow, and are a program that reads the rest."""
INTERPRETER = ("python3", "-I", "-S", "-c", BOOT)
"""Of the pod's image, which needs nothing else."""


class SandboxIn(BaseModel):
    """By default one of those that are ready."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str = Field(default="", max_length=500, pattern=r"^([a-z0-9][A-Za-z0-9._:/@-]*)?$")
    """A pod from this image instead, started for this; it needs python3, sh and cp."""
    folder: str = Field(default="", max_length=200, pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$")
    """Of that image, which programs may change: they see a copy of it at its own place."""


class SandboxOut(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str
    """Whoever knows it may use the sandbox."""
