"""kubectl against one cluster."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cluster.errors import ClusterError


@dataclass(frozen=True)
class Kubectl:
    program: Path
    kubeconfig: Path

    def try_run(
        self, *words: str, input_text: str | None = None, seconds: float = 300.0
    ) -> subprocess.CompletedProcess[str]:
        """Whatever it returns."""
        command = [str(self.program), f"--kubeconfig={self.kubeconfig}", *words]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/")}
        return subprocess.run(
            command, input=input_text, capture_output=True, text=True, timeout=seconds, env=environment, check=False
        )

    def __call__(self, *words: str, input_text: str | None = None, seconds: float = 300.0) -> str:
        """Standard output; ClusterError with kubectl's own words when it fails."""
        result = self.try_run(*words, input_text=input_text, seconds=seconds)
        if result.returncode:
            raise ClusterError(f"`kubectl {' '.join(words)}` ended with {result.returncode}: {result.stderr.strip()}")
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))

    def apply(self, *objects: dict[str, Any], namespace: str = "") -> str:
        """Server-side: the operators' CRDs are too large for a client-side apply's annotation."""
        words = ["apply", "--server-side", "--force-conflicts", "-f", "-"]
        return self(*words, *self._namespace(namespace), input_text=yaml.safe_dump_all(objects), seconds=300.0)

    def create(self, *objects: dict[str, Any], namespace: str = "") -> str:
        return self("create", "-f", "-", *self._namespace(namespace), input_text=yaml.safe_dump_all(objects))

    def create_all(self, objects: Sequence[dict[str, Any]]) -> None:
        """For megabytes of CRDs on a small machine: created without the client's validation, whose OpenAPI documents grow with each CRD.

        What is there already (from an installation that broke off) is applied over.
        """
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        text = json.dumps(everything)
        result = self.try_run("create", "--validate=false", "-f", "-", input_text=text, seconds=300.0)
        if result.returncode:
            self(
                "apply",
                "--server-side",
                "--force-conflicts",
                "--validate=false",
                "-f",
                "-",
                input_text=text,
                seconds=300.0,
            )

    def wait(self, what: str, condition: str, *, namespace: str = "", seconds: float = 240.0) -> None:
        """`condition` as kubectl takes it: condition=Ready, create, delete, jsonpath='{.status.phase}'=Running.

        On time-out the error has the object as it is now.
        """
        words = ["wait", what, f"--for={condition}", f"--timeout={seconds:.0f}s", *self._namespace(namespace)]
        result = self.try_run(*words, seconds=seconds + 15.0)
        if result.returncode:
            now = self.try_run("describe", what, *self._namespace(namespace))
            raise ClusterError(f"{what} is not {condition}: {result.stderr.strip()}\n{now.stdout}{now.stderr}")

    @staticmethod
    def _namespace(namespace: str) -> Sequence[str]:
        return ("-n", namespace) if namespace else ()
