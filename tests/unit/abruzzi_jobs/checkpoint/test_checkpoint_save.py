"""A save is of the step where it began, whatever training does while it is written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoint_lab import PREFIX, Ground, manifests, newest
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint import HuggingFaceStorageReader

from abruzzi.store import blob_key
from abruzzi_jobs.checkpoint.tensor_file import TensorFile, read_header, read_tensors
from abruzzi_jobs.distributed import lone_rank
from abruzzi_jobs.distributed.whole import Part, whole_parts


class Slow(Ground):
    """Its store's writes wait until they are let go."""

    def hold(self) -> threading.Event:
        go, put = threading.Event(), self.store.put_below

        def wait(prefix: str, content: bytes | memoryview, key: Callable[[], str]) -> None:
            go.wait()
            put(prefix, content, key)

        self.store.put_below = wait  # type: ignore[method-assign]
        return go


def test_training_goes_on_while_a_save_holds_the_step_where_it_began_bit_for_bit(tmp_path: Path) -> None:
    ground = Slow(tmp_path, lone_rank(), None)
    ground.fill(1)
    go = ground.hold()
    ground.save(1)
    ground.fill(2)  # in place, as steps do
    assert manifests(tmp_path) == [], "nothing can be seen of what is being written"
    go.set()
    ground.save(3)  # waits for the one before, then takes its memory
    ground.checkpointer.finish()
    first, second = ground.checkpointer.take_reports()
    assert (first.step, second.step) == (1, 3)
    newer, older = manifests(tmp_path)
    for manifest, version in ((older, 1), (newer, 2)):
        entry = next(entry for entry in manifest.files if entry.path == "model.safetensors")
        held = load_file(ground.store.path(blob_key(PREFIX, entry.digest)))
        ground.fill(version)
        assert held.keys() == ground.model.state_dict().keys()
        for name, tensor in ground.model.state_dict().items():
            assert torch.equal(held[name], tensor), name


def test_a_damaged_file_is_written_anew_when_the_same_is_saved_again(tmp_path: Path) -> None:
    ground = Ground(tmp_path, lone_rank(), None)

    def save() -> None:
        ground.fill(1)
        ground.save(1)
        ground.checkpointer.finish()

    save()
    entry = next(entry for entry in manifests(tmp_path)[0].files if entry.path == "optimizer.safetensors")
    blob = ground.store.path(blob_key(PREFIX, entry.digest))
    content = blob.read_bytes()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert newest(tmp_path) is None
    save()
    assert newest(tmp_path) is not None


def test_a_file_is_as_the_librarys_own(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5), "a": torch.randn(7).bfloat16(), "step": torch.tensor(9), "flags": torch.tensor([True, False]),
        "nothing": torch.zeros(0, 4), "turned": torch.randn(4, 3).T,
    }  # fmt: skip
    file = TensorFile(whole_parts(tensors))
    file.fill(whole_parts(tensors))
    (tmp_path / "model.safetensors").write_bytes(file.content)
    for found in (
        load_file(tmp_path / "model.safetensors"),
        read_tensors({"model.safetensors": tmp_path / "model.safetensors"}, "model"),
    ):
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "theirs.safetensors")
    content = torch.frombuffer(bytearray((tmp_path / "theirs.safetensors").read_bytes()), dtype=torch.uint8)
    for stored in read_header(content):
        assert torch.equal(stored.of(content), tensors[stored.name])


@pytest.mark.parametrize("content", [b"", b"\0" * 8, b"\xff" * 30, b"\x02\0\0\0\0\0\0\0[]", b'\x02\0\0\0\0\0\0\0{"'])
def test_what_is_no_safetensors_file_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(ValueError, match="no safetensors file"):
        read_header(torch.tensor(list(content), dtype=torch.uint8))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_own_reader_joins_the_rows_that_ranks_have_written(tmp_path: Path) -> None:
    whole = torch.randn(5, 3)
    for number, rows in enumerate((slice(0, 2), slice(2, 5))):
        parts = [Part("w", rows.start, 5, whole[rows]), *whole_parts({f"own.{number}": torch.tensor([number])})]
        file = TensorFile(parts)
        file.fill(parts)
        (tmp_path / f"model-{number + 1:05d}-of-00002.safetensors").write_bytes(file.content)
    found = {"w": torch.zeros(5, 3), "own.0": torch.tensor([7]), "own.1": torch.tensor([7])}
    dcp.load(found, storage_reader=HuggingFaceStorageReader(str(tmp_path)), no_dist=True)
    assert torch.equal(found["w"], whole)
    assert (int(found["own.0"]), int(found["own.1"])) == (0, 1)


def test_rows_that_no_file_has_are_missed(tmp_path: Path) -> None:
    part = Part("w", 2, 5, torch.randn(3, 3))
    file = TensorFile([part])
    file.fill([part])
    (tmp_path / "x").write_bytes(file.content)
    with pytest.raises(ValueError, match="w: rows 0 to 2 are in no file"):
        read_tensors({"model-00002-of-00002.safetensors": tmp_path / "x"}, "model")
    with pytest.raises(FileNotFoundError, match="nor parts of it"):
        read_tensors({"model-00002-of-00002.safetensors": tmp_path / "x"}, "optimizer")
