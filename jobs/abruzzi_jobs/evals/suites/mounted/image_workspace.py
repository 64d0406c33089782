"""A repository in an image that its owner has built, with all that its tests need: each command runs in a pod of its own from it (sandbox.Box.image)."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.rl.environments.gyms.software.workspace import GIT, Workspace
from abruzzi_jobs.sandbox import Box, Limits

_ARCHIVE, _ARCHIVE_SECONDS = "snapshot.tar.gz", 300.0
_IN_IMAGE = """
export WORKSPACE="$PWD" PATH="/opt/miniconda3/envs/testbed/bin:$PATH"
place=$1
shift
cd "$place" && base=$(git rev-parse HEAD) || exit 126
[ ! -s "$WORKSPACE/changes" ] || git apply --whitespace=nowarn "$WORKSPACE/changes" || exit 126
"$@"
code=$?
cd "$place" && git add -A && git diff --cached --binary "$base" > "$WORKSPACE/next" && mv "$WORKSPACE/next" "$WORKSPACE/changes"
exit $code
"""
"""With the environment of SWE-bench's own images first, where it is there. What git ignores is not carried from one command to the next, nor is a commit."""


class ImageWorkspace(Workspace):
    """What commands have changed goes along as a patch, so that a pod is taken for as long as a command runs, and no longer."""

    def __init__(self, image: str, place: str, *, limits: Limits) -> None:
        """`place`: a folder of the image, a git repository at the base commit. Raises AbruzziError `no_sandbox`, `sandbox_failed`, `image_refused`,
        `bad_data`."""
        self._place = place
        self._folder = Path(tempfile.mkdtemp(prefix="abruzzi-image-"))
        self._box = Box(workspace=self._folder, limits=limits, environment=GIT, image=image, folder=place)
        try:
            begun = self.run(["git", "rev-parse", "HEAD"])
            if not begun.ok:
                said = begun.stderr.decode("utf-8", "replace").strip()[-300:]
                raise AbruzziError("bad_data", f"{place} of image {image} is no git repository: {said}")
            self.beginning = begun.stdout.decode().strip()
        except BaseException:
            self.close()
            raise

    def archive(self) -> Path:
        """The repository at the base commit, as `git archive` gives it; it is there until `close`."""
        command = f'git archive --format=tar.gz -o "$WORKSPACE/{_ARCHIVE}" {self.beginning}'
        done = self.run(["sh", "-c", command], wall_seconds=_ARCHIVE_SECONDS)
        if not done.ok:
            raise AbruzziError("bad_data", f"git archive: {done.stderr.decode('utf-8', 'replace')[-300:]}")
        return self._folder / _ARCHIVE

    def _inside(self, argv: Sequence[str]) -> Sequence[str]:
        inside = ["python3" if word == sys.executable else word for word in argv]
        return ["sh", "-c", _IN_IMAGE, "sh", self._place, *inside]
