"""A model's folder as its makers publish it on Hugging Face: what its index and the headers of its files promise, looked at before any weight is read.

For a trillion parameters that takes seconds and no memory: config.json, model.safetensors.index.json and the headers of such files as are there.
DeepSeek V3 and Kimi K2 are published in FP8 E4M3 with a float32 scale for each block of 128×128 (`weight_scale_inv`): weight = FP8 × scale.

Shapes: N rows, C columns, n and c blocks of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.models import KimiK2, Llama
from abruzzi_jobs.models.config import LlamaConfig, ModelConfig

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SCALE = "_scale_inv"
_BUFFERS = (".rotary_emb.inv_freq",)
"""Published by some, computed by us."""
BLOCK = 128
_SLACK = 0.01
"""Buffers, and further layers that only predict."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Header:
    """Of one tensor, as the file that holds it says."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FolderReport:
    """What a folder is, and what is wrong with it."""

    config: ModelConfig | LlamaConfig
    parameters: int
    tensors: int
    """That it promises: in the index, or without one in its files."""
    quantised: int
    """Tensors in FP8 with their scales."""
    files: tuple[str, ...]
    missing_files: tuple[str, ...]
    """That the index names and the folder lacks: of an index alone, all."""
    promised_bytes: int | None
    """What the index says all tensors take."""
    expected_bytes: int
    """What they would take by the configuration: weights that have scales in FP8, the others in its dtype."""
    faults: tuple[str, ...]
    """Empty: it is a model of ours. Tensors that are missing, unknown, of another shape, without their scale, or
    not where the index says; an index that promises other sizes."""

    @property
    def complete(self) -> bool:
        """Its weights can be read, too."""
        return not self.faults and not self.missing_files


def inspect_folder(
    directory: Path, config: ModelConfig | LlamaConfig, names: Mapping[str, Tensor], *, dtype_bytes: int
) -> FolderReport:
    """`names`: the published name and shape of each tensor that `config` needs (meta tensors do).

    Raises AbruzziError bad_data where index or a file's header can't be read.
    """
    weight_map, promised_bytes = _index(directory)
    present = {path.name: _headers(path) for path in sorted(directory.glob("*.safetensors"))}
    if not present and not weight_map:
        raise AbruzziError(
            "bad_data",
            f"{directory}: neither {INDEX_FILE} nor a *.safetensors file.",
            hint="Give the folder that holds config.json and the published shards.",
        )
    found = {name: header for headers in present.values() for name, header in headers.items()}
    promised = set(weight_map or found)
    faults = [
        *_told("missing", names.keys() - promised),
        *_told("unknown", (name for name in promised - names.keys() if not _belongs(name, names, config))),
        *_told("not in the file that the index names", (n for n, f in weight_map.items() if f in present and n not in present[f])),
        *_told("in two files", _twice(present.values())),
        *_told("of another shape", (_misshapen(n, h, names[n]) for n, h in found.items() if n in names and h.shape != tuple(names[n].shape))),
        *_told("in FP8 without its scale", (n for n, h in found.items() if h.dtype == "F8_E4M3" and n + SCALE not in promised)),
    ]  # fmt: skip
    expected = _expected_bytes(names, promised, dtype_bytes)
    if promised_bytes is not None and abs(promised_bytes - expected) > _SLACK * expected:
        faults.append(f"its index promises {promised_bytes:,} bytes, its configuration {expected:,}")
    files = tuple(sorted({*weight_map.values(), *present}))
    return FolderReport(
        config=config,
        parameters=sum(
            tensor.numel() for name, tensor in names.items() if not name.endswith("e_score_correction_bias")
        ),
        tensors=len(promised),
        quantised=sum(name.endswith(SCALE) for name in promised),
        files=files,
        missing_files=tuple(name for name in files if name not in present),
        promised_bytes=promised_bytes,
        expected_bytes=expected,
        faults=tuple(faults),
    )


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """All of a folder's tensors by their published names; FP8 ones multiplied with their scales, in bfloat16.

    Raises FileNotFoundError where a file is missing, ValueError where a scale does not fit its weight.
    """
    weight_map, _ = _index(directory)
    lacking = sorted(name for name in set(weight_map.values()) if not (directory / name).is_file())
    if lacking:
        raise FileNotFoundError(f"{directory}: {_listed(lacking)} missing, which {INDEX_FILE} names")
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(
            f"{directory}: no *.safetensors file; an export has model.safetensors or numbered shards"
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        with safe_open(path, framework="pt") as archive:
            tensors.update({name: archive.get_tensor(name) for name in archive.keys()})  # noqa: SIM118 (not a dict)
    scales = {name: tensors.pop(name) for name in list(tensors) if name.endswith(SCALE)}
    for name, scale_nc in scales.items():
        stem = name.removesuffix(SCALE)
        if stem not in tensors:
            raise ValueError(f"{name} is there, {stem} is not")
        try:
            tensors[stem] = dequantise(tensors[stem], scale_nc)
        except ValueError as error:
            raise ValueError(f"{stem}: {error}") from error
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_BUFFERS)}


def dequantise(
    weight_NC: Tensor, scale_nc: Tensor, *, block: int = BLOCK, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """Block-scaled FP8 to `dtype`: each block of `block`×`block` times its scale, in float32 on the way."""
    rows, columns = weight_NC.shape
    blocks = (-(-rows // block), -(-columns // block))
    if tuple(scale_nc.shape) != blocks:
        raise ValueError(
            f"scales of shape {list(scale_nc.shape)}, where {rows}×{columns} has {blocks[0]}×{blocks[1]} blocks of {block}"
        )
    scale_NC = scale_nc.float().repeat_interleave(block, 0)[:rows].repeat_interleave(block, 1)[:, :columns]
    return (weight_NC.float() * scale_NC).to(dtype)


def empty_model(config: ModelConfig | LlamaConfig) -> dict[str, Tensor]:
    """Its state on torch's meta device: names and shapes, no memory."""
    model = Llama(config, device="meta") if isinstance(config, LlamaConfig) else KimiK2(config, device="meta")
    return model.state_dict()


def _index(directory: Path) -> tuple[dict[str, str], int | None]:
    path = directory / INDEX_FILE
    if not path.is_file():
        return {}, None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        weight_map = {str(name): str(file) for name, file in table["weight_map"].items()}
        size = table.get("metadata", {}).get("total_size")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise AbruzziError(
            "bad_data", f"{path}: not an index of safetensors files ({error}).", hint="Fetch it again."
        ) from error
    strange = sorted(
        {file for file in weight_map.values() if Path(file).name != file or not file.endswith(".safetensors")}
    )
    if strange:
        raise AbruzziError(
            "bad_data", f"{path}: {_listed(strange)} is no safetensors file of this folder.", hint="Fetch it again."
        )
    return weight_map, None if size is None else int(size)


def _headers(path: Path) -> dict[str, Header]:
    try:
        with safe_open(path, framework="pt") as archive:
            slices = {name: archive.get_slice(name) for name in archive.keys()}  # noqa: SIM118 (not a dict)
            return {name: Header(path.name, held.get_dtype(), tuple(held.get_shape())) for name, held in slices.items()}
    except (OSError, SafetensorError) as error:
        raise AbruzziError(
            "bad_data", f"{path}: no safetensors file, or cut short ({error}).", hint="Fetch it again."
        ) from error


def _expected_bytes(names: Mapping[str, Tensor], promised: Collection[str], dtype_bytes: int) -> int:
    total = 0
    for name, tensor in names.items():
        if name + SCALE in promised:
            rows, columns = tensor.shape
            total += tensor.numel() + 4 * -(-rows // BLOCK) * -(-columns // BLOCK)
        else:
            total += tensor.numel() * dtype_bytes
    return total


def _belongs(name: str, names: Mapping[str, Tensor], config: ModelConfig | LlamaConfig) -> bool:
    """A scale of a known weight, a buffer that we compute, a layer that only predicts further tokens, the tied head."""
    if name.endswith(SCALE):
        return name.removesuffix(SCALE) in names or _belongs(name.removesuffix(SCALE), names, config)
    if name.endswith(_BUFFERS) or (config.tie_embeddings and name == "lm_head.weight"):
        return True
    parts = name.split(".")
    return parts[:2] == ["model", "layers"] and parts[2].isdigit() and int(parts[2]) >= config.num_layers


def _twice(files: Iterable[Mapping[str, Header]]) -> list[str]:
    seen: set[str] = set()
    again: list[str] = []
    for headers in files:
        again += [name for name in headers if name in seen]
        seen |= headers.keys()
    return again


def _misshapen(name: str, header: Header, wanted: Tensor) -> str:
    return f"{name} ({list(header.shape)}, the configuration says {list(wanted.shape)})"


def _told(what: str, names: Iterable[str]) -> list[str]:
    found = sorted(names)
    return [f"{len(found)} {what}: {_listed(found)}"] if found else []


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
