"""The project's own Containerfiles, built unchanged by buildah without a registry and handed to the node.

Their base images are the stand-ins of base_images.py. Packages come from the registries that this machine's own clients use: the certificates
that it trusts are mounted into the build, and nothing of that stays in the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster.errors import ClusterError
from cluster.images import Image, import_archive, write_archive
from cluster.layout import ROOT
from cluster.local_cluster import LocalCluster
from cluster.node import run

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_PIP = f"[global]\ncert = {CERTIFICATES}\n"
_UV = "native-tls = true\n"
_NPM = f"cafile={CERTIFICATES}\n"


class Builder:
    """`bases` are what the Containerfiles start FROM, by their own names. Everything lies below the cluster's state directory."""

    def __init__(self, cluster: LocalCluster, bases: Sequence[Image]) -> None:
        self._cluster = cluster
        self._folder = cluster.layout.state / "buildah"
        self._folder.mkdir(exist_ok=True)
        for base in bases:
            archive = write_archive(base, self._folder / "base.tar")
            self._buildah("pull", "--quiet", f"docker-archive:{archive}")
            archive.unlink()

    def build(
        self,
        containerfile: Path,
        name: str,
        *,
        context: Path = ROOT,
        target: str = "",
        caches: Mapping[Path, str] | None = None,
    ) -> None:
        """Builds and imports; the node then has the image under `name`. Raises ClusterError with the build's last words.

        `caches`: folders of this machine and where the build's tools look for theirs, so that nothing is fetched and compiled twice.
        """
        mounts = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
        for text, inside in ((_PIP, "/etc/pip.conf"), (_UV, "/etc/uv/uv.toml"), (_NPM, "/usr/local/etc/npmrc")):
            here = self._folder / Path(inside).name
            here.write_text(text)
            mounts.append(f"--volume={here}:{inside}:ro")
        mounts += [f"--volume={here}:{inside}" for here, inside in (caches or {}).items()]
        chosen = ["--target", target] if target else []
        self._buildah(
            *("bud", "--isolation=chroot", "--pull-never", "--layers=false", *mounts, *chosen),
            *("--file", containerfile, "--tag", name, context),
        )
        archive = (
            self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.tar"
        )  # several builds may go on at once
        self._buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")
        import_archive(self._cluster.layout, archive)
        archive.unlink()

    def _buildah(self, *words: str | Path) -> str:
        try:
            return run("buildah", "--root", self._folder / "images", "--runroot", self._folder / "run", *words)
        except ClusterError as error:
            raise ClusterError("\n".join(str(error).splitlines()[-40:])) from error
