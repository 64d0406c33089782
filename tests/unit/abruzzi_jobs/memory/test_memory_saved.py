"""What layers keep for backward: every policy against keeping all, the ledger against the planner, the graph itself against the ledger."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from abruzzi.contracts import training as contract
from abruzzi.plan.activations import layer_activations
from abruzzi_jobs.memory import Ledger, MemoryPolicy, host, saved
from abruzzi_jobs.models import Decoder, KimiK2, Llama, LlamaConfig, ModelConfig
from abruzzi_jobs.models.linear import Queue, deferring
from abruzzi_jobs.models.rows import ragged_forward

NAMES = ("layernorm", "swiglu", "mla_up_projection", "moe_down_projection")
TABLE = contract.ModelConfig(
    preset="nano", hidden_size=128, num_layers=3, num_heads=4, moe_intermediate_size=128, intermediate_size=256, sequence_aux_loss=1e-3
)  # fmt: skip
CONFIG = ModelConfig.from_dict(TABLE.model_dump())
PAPER = {"recompute": NAMES, "fp8_activations": True, "offload_activations": True}
EXACT: list[dict[str, Any]] = [
    *({"recompute": (name,)} for name in NAMES),
    {"recompute": NAMES},
    {"offload_activations": True},
    {"recompute": NAMES, "offload_activations": True},
]


def model_with(policy: dict[str, Any], *, dtype: torch.dtype = torch.float32) -> KimiK2:
    model = KimiK2(CONFIG, seed=3, dtype=dtype)
    model.activations.policy = MemoryPolicy.from_dict(policy)
    return model


def batch(rows: int = 2, length: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens_BL = torch.randint(0, TABLE.vocab_size, (rows, length), generator=generator)
    segments_BL = (torch.arange(length) >= length // 3).to(torch.int32).expand(rows, -1)
    return tokens_BL, tokens_BL.roll(-1, 1), segments_BL


def gradients(model: Decoder, *, packed: bool = True, rows: int = 2) -> dict[str, Tensor]:
    tokens_BL, targets_BL, segments_BL = batch(rows)
    out = model(tokens_BL, targets_BL, segments_BL if packed else None)
    assert out.loss is not None
    out.loss.backward()
    return {"loss": out.loss.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("policy", EXACT, ids=str)
def test_what_is_recomputed_or_comes_from_the_host_gives_the_gradients_of_keeping_to_the_bit(
    policy: dict[str, Any], dtype: torch.dtype
) -> None:
    assert equal(gradients(model_with(policy, dtype=dtype)), gradients(model_with({}, dtype=dtype)))


def test_a_second_step_on_the_same_buffers_is_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = model_with(EXACT[-1]), model_with({})
    gradients(ours)
    gradients(theirs)
    mapped: list[int] = []
    take = host.mmap.mmap
    monkeypatch.setattr(host.mmap, "mmap", lambda place, size: mapped.append(size) or take(place, size))
    assert equal(gradients(ours), gradients(theirs))
    assert not mapped, "the first step's buffers are free again"


def test_weight_gradients_that_are_taken_later_are_the_same() -> None:
    found = []
    for policy in (EXACT[-1], {}):
        model, queue = model_with(policy), Queue()
        tokens_BL, targets_BL, _ = batch()
        with deferring(queue):
            loss = model(tokens_BL, targets_BL).loss
        loss.backward()
        with torch.no_grad():
            for take in queue:
                take()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert equal(*found)


def test_a_graph_that_is_kept_gives_its_gradients_again() -> None:
    model = model_with(EXACT[-1])
    tokens_BL, targets_BL, _ = batch()
    loss = model(tokens_BL, targets_BL).loss
    parameters = list(model.parameters())
    first = torch.autograd.grad(loss, parameters, retain_graph=True)
    second = torch.autograd.grad(loss, parameters)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


def test_llama_and_flat_rows_follow_the_policy() -> None:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, intermediate_size=64
    )
    found = []
    for policy in (EXACT[-1], {}):
        model = Llama(config, seed=1)
        model.activations.policy = MemoryPolicy.from_dict(policy)
        tokens_BL, targets_BL, _ = batch()
        (
            model(tokens_BL % 64, targets_BL % 64).loss
            + ragged_forward(model, tokens_BL[0] % 64, [20, 28]).hidden_TD.sum()
        ).backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert equal(*found)


def test_attention_runs_once_though_its_queries_keys_and_values_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[None] = []
    attention = sys.modules["abruzzi_jobs.models.attention"]
    prepared = attention._prepared
    monkeypatch.setattr(attention, "_prepared", lambda *given: ran.append(None) or prepared(*given))
    gradients(model_with({"recompute": NAMES}))
    assert len(ran) == 2 * TABLE.num_layers, "once forward and once backward"


# FP8


def test_eight_bits_move_gradients_by_a_few_percent_and_no_loss() -> None:
    """E4M3 has three bits of mantissa: half of 2**-3 at most, 2.6 % on average; errors of different tokens add as noise."""
    ours, theirs = gradients(model_with(PAPER), rows=8), gradients(model_with({}), rows=8)
    assert torch.equal(ours["loss"], theirs["loss"])
    for name, gradient in theirs.items():
        assert (ours[name] - gradient).norm() <= 0.05 * gradient.norm(), name


# The ledger


def planned(policy: dict[str, Any]) -> float:
    """Bytes a token of all layers."""
    memory = contract.MemoryConfig.model_validate(policy)
    layers = [layer_activations(TABLE, memory, moe=CONFIG.is_moe(layer)) for layer in range(TABLE.num_layers)]
    return sum(tensor.bytes for tensor in itertools.chain.from_iterable(layers))


def counted(policy: dict[str, Any], *, rows: int = 4, length: int = 256) -> tuple[Ledger, Any]:
    model = model_with(policy, dtype=MemoryPolicy.from_dict(policy).compute_dtype)
    ledger = model.activations.count(model)
    return ledger, model(batch(rows, length)[0])


@pytest.mark.parametrize(
    "policy",
    [{}, *EXACT, {"fp8_activations": True}, PAPER, {"dtype": "bfloat16"}, {**PAPER, "dtype": "bfloat16"}],
    ids=str,
)
def test_the_planner_predicts_the_ledger_within_two_percent(policy: dict[str, Any]) -> None:
    ledger, _ = counted(policy)
    assert ledger.device_bytes + ledger.host_bytes == pytest.approx(planned(policy) * 1024, rel=0.02)
    assert ledger.plain_bytes == pytest.approx(planned({"dtype": policy.get("dtype", "float32")}) * 1024, rel=0.02)
    assert sum(ledger.by_module().values()) == sum(ledger.by_kind().values()) == ledger.device_bytes + ledger.host_bytes


def test_the_ledger_names_modules_and_kinds() -> None:
    kept, _ = counted({})
    ours, _ = counted({**PAPER, "offload_activations": False})
    assert kept.by_kind().keys() == {"kept"}
    assert ours.by_kind().keys() == {"kept", "recomputed", "fp8"}
    assert ours.by_kind()["recomputed"] == 0
    of = {(entry.module, entry.kind) for entry in ours.entries}
    assert {
        ("layers.1.self_attn.q_a_proj", "recomputed"),
        ("layers.1.self_attn", "recomputed"),
        ("layers.1.self_attn.q_a_layernorm", "kept"),
        ("layers.1.mlp.experts", "fp8"),
        ("layers.1.mlp.shared_experts", "fp8"),
        ("layers.1.mlp.shared_experts.down_proj", "recomputed"),
        ("layers.1.post_attention_layernorm", "kept"),
    } <= of


def test_what_is_offloaded_leaves_the_device_but_for_routing() -> None:
    ledger, _ = counted(PAPER)
    assert ledger.device_bytes < 0.02 * ledger.host_bytes
    assert {entry.kind for entry in ledger.entries if entry.bytes >= 4096 and "router" not in entry.module} <= {
        "offloaded",
        "kept",
    }


@pytest.mark.parametrize("policy", [{}, {**PAPER, "offload_activations": False}, PAPER], ids=str)
def test_the_graph_holds_what_the_ledger_says(policy: dict[str, Any]) -> None:
    model = model_with(policy)
    ledger = model.activations.count(model)
    tokens = batch(4, 256)[0]
    with storages(besides=[tokens, *model.parameters(), *model.buffers()]) as made:
        out = model(tokens)
    alive = {key.cdata: size for key, size in made if not key.expired()}
    outside = out.hidden_BLD.nbytes
    assert sum(alive.values()) - outside == pytest.approx(ledger.device_bytes, rel=0.03, abs=64 * 1024)


def test_a_pass_is_counted_once_and_modules_run_unwatched_afterwards() -> None:
    model = model_with({})
    ledger = model.activations.count(model)
    gradients(model)
    entries = len(ledger.entries)
    gradients(model)
    assert len(ledger.entries) == entries
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_without_a_policy_nothing_comes_between_autograd_and_its_tensors() -> None:
    assert model_with({}).activations.begin() is None
    with torch.no_grad():
        assert model_with(PAPER).activations.begin() is None


def test_backward_asks_for_a_layer_while_it_is_in_the_one_above(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(host.Away, "fetch", lambda _: asked.append("begin"))
    back = host.Away.back
    monkeypatch.setattr(host.Away, "back", lambda away: asked.append("use") or back(away))
    gradients(model_with({"offload_activations": True}))
    assert asked[0] == "begin"
    assert asked.count("begin") > asked.count("use") / 2
    last_begin = len(asked) - 1 - asked[::-1].index("begin")
    assert "use" in asked[last_begin:]


def test_a_function_that_gives_another_layout_is_told() -> None:
    store = saved.ActivationStore(MemoryPolicy(recompute=("swiglu",)), None, offloads_itself=False)
    x = torch.ones(8, requires_grad=True)
    with store.layer():
        y = x * 2
        saved.recomputed("swiglu", (y,), lambda x: x[:4] * 2, (x,))
        z = y.sin()
    with pytest.raises(RuntimeError, match="16 bytes came for 32"):
        z.sum().backward()


@contextmanager
def storages(besides: Sequence[Tensor]) -> Iterator[list[tuple[StorageWeakRef, int]]]:
    """All that operations make inside, and indices that they are given, which NumPy has made; not the host's memory that offloaded ones are copied into."""
    made: list[tuple[StorageWeakRef, int]] = []
    known = {StorageWeakRef(tensor.untyped_storage()) for tensor in besides}

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
            theirs = {StorageWeakRef(t.untyped_storage()) for t in given}
            came = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
            found = [t for t in came if StorageWeakRef(t.untyped_storage()) not in theirs]
            found += [t for t in given if t.dtype in (torch.int32, torch.int64)]
            for tensor in found:
                storage = StorageWeakRef(tensor.untyped_storage())
                if storage not in known:
                    known.add(storage)
                    made.append((storage, tensor.untyped_storage().nbytes()))
            return out

    with Watch():
        yield made
