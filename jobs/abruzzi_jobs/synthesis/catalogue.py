"""The catalogue: an artifact of tool specs. `tools.jsonl.zst` (one ToolSpec a line) and `catalogue.json`, which says what is in it and whence.

Written beside its place and moved there, so that a folder is a whole catalogue or none; a file cut short is found by its digest.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zstandard
from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError, Conflict
from abruzzi.contracts.tool import ToolSpec

TOOLS_FILE, MANIFEST_FILE = "tools.jsonl.zst", "catalogue.json"
_REMEDY = "Make the catalogue again."


def write_catalogue(folder: Path, tools: Iterable[ToolSpec], **provenance: Any) -> dict[str, Any]:
    """Returns the manifest: {version, tools, synthetic, real, sources, digest, content_digest, …provenance}. The bytes depend on the arguments only.

    Raises Conflict where a catalogue is there already: two writers of one name never mix."""
    kept = list(tools)
    lines = [tool.model_dump_json(exclude_defaults=True) + "\n" for tool in kept]
    content = "".join(lines).encode()
    packed = zstandard.ZstdCompressor(level=9).compress(content)
    synthetic = sum(tool.is_synthetic for tool in kept)
    manifest = {
        "version": 1,
        "tools": len(kept),
        "synthetic": synthetic,
        "real": len(kept) - synthetic,
        "sources": dict(sorted(Counter(tool.source for tool in kept).items())),
        "licences": dict(sorted(Counter(tool.licence for tool in kept).items())),
        "digest": "sha256:" + hashlib.sha256(packed).hexdigest(),
        "content_digest": "sha256:" + hashlib.sha256(content).hexdigest(),
        **provenance,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as fresh:
        made = Path(fresh) / "catalogue"
        made.mkdir()
        (made / TOOLS_FILE).write_bytes(packed)
        (made / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        try:
            os.rename(made, folder)  # refuses a folder that has files; replaces an empty one
        except OSError as error:
            hint = "Choose another name, or remove it first."
            raise Conflict(f"{folder}: there is something already.", hint=hint) from error
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text())
        if not isinstance(manifest["digest"], str):
            raise ValueError("its digest is no text")
        return manifest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AbruzziError("bad_data", f"{folder}: not a catalogue of tools ({error}).", hint=_REMEDY) from error


def read_catalogue(folder: Path) -> list[ToolSpec]:
    """Raises AbruzziError bad_data where the file is not what its manifest says."""
    manifest = read_manifest(folder)
    path = folder / TOOLS_FILE
    try:
        packed = path.read_bytes()
        if "sha256:" + hashlib.sha256(packed).hexdigest() != manifest["digest"]:
            raise ValueError(f"{len(packed)} bytes with another digest than the manifest's")
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(packed).splitlines()
        return [ToolSpec.model_validate_json(line) for line in lines]
    except (OSError, ValueError, zstandard.ZstdError, ValidationError) as error:
        raise AbruzziError("bad_data", f"{path}: damaged ({error}).", hint=_REMEDY) from error
