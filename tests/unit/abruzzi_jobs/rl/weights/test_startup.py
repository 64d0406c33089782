"""Beginning from a checkpoint: every byte is read by one member, all get everything, and damage is found (paper 3.3.3)."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from weights_lab import SECONDS, counted, heard, members, starter, sums, weights

from abruzzi.contracts.stage import DirectoryStore as StoreConfig
from abruzzi.contracts.stage import StageSpec
from abruzzi.contracts.states import ArtifactKind, StageKind
from abruzzi.store import DirectoryStore, blob_key, commit_artifact
from abruzzi_jobs.rl.weights.group import Group, WeightUpdateFailed
from abruzzi_jobs.rl.weights.startup import Weights, files_of_folder, files_of_manifest, start_from
from abruzzi_jobs.rl.weights.transport import InProcess


@pytest.fixture
def checkpoint(tmp_path):
    tensors = {name: tensor.contiguous() for name, tensor in weights(4).items()}
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:7]}, tmp_path / "model-00001.safetensors", {"format": "pt"})
    save_file({name: tensors[name] for name in names[7:]}, tmp_path / "model-00002.safetensors")
    return tmp_path


def digests_of(folder):
    return {path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_four_members_read_each_byte_once_and_all_have_all_of_it(checkpoint):
    with members([starter] * 4, checkpoint, digests_of(checkpoint)) as pipes:
        answers = [heard(pipe) for pipe in pipes]
    assert [failure for failure, _, _ in answers] == [""] * 4
    assert all(found == sums(weights(4)) for _, found, _ in answers)
    for path in checkpoint.iterdir():
        assert sum(read.get(path.name, 0) for _, _, read in answers) == path.stat().st_size
    assert sum(bool(read) for _, _, read in answers) >= 3


def test_a_flipped_bit_is_found_by_all_members_and_nobody_serves_it(checkpoint):
    digests = digests_of(checkpoint)
    file = checkpoint / "model-00002.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with members([starter] * 2, checkpoint, digests) as pipes:
        answers = [heard(pipe) for pipe in pipes]
    for failure, found, _ in answers:
        assert "model-00002.safetensors does not hash to its digest" in failure
        assert found == {}


def begin(folder, **more):
    sink, read = Weights(), {}
    files = [counted(file, read, digests_of(folder)) for file in files_of_folder(folder)]
    start_from(Group.alone(), InProcess(), files, sink, version=1, deadline_seconds=SECONDS, **more)
    return sink, read


def test_one_process_begins_alone_and_reads_each_byte_once(checkpoint):
    sink, read = begin(checkpoint, bucket_bytes=256)
    assert sums(sink.tensors) == sums(weights(4))
    assert sum(read.values()) == sum(path.stat().st_size for path in checkpoint.iterdir())
    assert sink.tensors["norm.weight"].dtype is torch.bfloat16


def test_a_committed_checkpoint_is_read_from_its_store_and_damage_is_found_by_its_manifest(checkpoint, tmp_path):
    store = DirectoryStore(tmp_path / "store")
    prefix = "projects/default/runs/0123456789/train/"
    maker = StageSpec(
        project_id="default", run_id="0123456789", stage_id="train", attempt_id="0123456789-train-1", epoch=1, kind=StageKind.PRETRAIN,
        config={}, store=StoreConfig(root=str(tmp_path / "store")), output_prefix=prefix,
    )  # fmt: skip
    shards = {path.name: path for path in sorted(checkpoint.glob("*.safetensors"))}
    _, manifest = commit_artifact(store, maker, kind=ArtifactKind.CHECKPOINT, name="step-00000001", files=shards)

    def begun() -> Weights:
        files = files_of_manifest(store, manifest, prefix, names=list(shards))
        start_from(Group.alone(), InProcess(), files, sink := Weights(), version=1, deadline_seconds=SECONDS)
        return sink

    assert sums(begun().tensors) == sums(weights(4))
    stored = tmp_path / "store" / blob_key(prefix, manifest.files[0].digest)
    content = bytearray(stored.read_bytes())
    content[-5] ^= 1
    stored.chmod(0o644)
    stored.write_bytes(content)
    with pytest.raises(WeightUpdateFailed, match=r"model-00001\.safetensors does not hash to its digest"):
        begun()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x05", "it ends too early"),
        (b"\xff" * 16, "a header of"),
        (b"\x02\0\0\0\0\0\0\0{x", "its header does not read"),
        (
            b'\x3f\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]},"b":1     }abc',
            "its header does not read",
        ),
        (b'\x35\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}  abc', "a does not lie where"),
        (b'\x35\0\0\0\0\0\0\0{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}a', "it ends too early"),
    ],
)
def test_what_is_no_safetensors_file_is_said(tmp_path, content, says):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightUpdateFailed, match=f"model.safetensors is no safetensors file: {says}"):
        begin(tmp_path)


def test_a_sink_that_serves_already_does_not_begin(checkpoint):
    sink = Weights()
    sink.version = 1
    with pytest.raises(WeightUpdateFailed, match="does not begin"):
        start_from(Group.alone(), InProcess(), files_of_folder(checkpoint), sink, version=1)
    assert sink.tensors == {}
