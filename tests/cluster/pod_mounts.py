"""What stages run, brought into thin pods by mounts: the node is this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from cluster.layout import ROOT

HOST_FOLDERS = {"/usr": "/usr", "/lib": "/usr/lib", "/lib64": "/usr/lib64", "/bin/bash": "/usr/bin/bash"}
"""Path in the pod: path here. The interpreter's libraries are this machine's, and the shell that KubeRay starts Ray with."""


def pod_template() -> dict[str, Any]:
    """This checkout, its environment, its interpreter and the libraries of this machine, read-only at their own paths."""
    checkout = {str(ROOT): str(ROOT), sys.base_prefix: os.path.realpath(sys.base_prefix)}
    mounts = HOST_FOLDERS | (checkout if not sys.base_prefix.startswith("/usr") else {str(ROOT): str(ROOT)})
    return {
        "volumes": [
            {"name": f"host-{number}", "hostPath": {"path": source}} for number, source in enumerate(mounts.values())
        ],
        "volume_mounts": [
            {"name": f"host-{number}", "mountPath": path, "readOnly": True} for number, path in enumerate(mounts)
        ],
        "env": {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
            **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ},
            "USER": "abruzzi",
        },
    }
