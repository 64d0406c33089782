"""SmolLM2's weights in our Llama against llama.cpp: tokens, and what comes next. bench/smollm2_parity.py looks at 500 positions, and at the weights as
they are shipped."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.request import Request, urlopen

import pytest
import torch

from abruzzi_jobs.export.bases import SMOLLM2, build_model, read_base
from abruzzi_jobs.export.gguf import GgufModel

pytestmark = pytest.mark.parity
pytest.importorskip("xllamacpp")

BENCH = Path(__file__).parents[2] / "bench"
LICENCE = BENCH.parent / "LICENSE"
POSITIONS = 80
TEXTS = [
    "Hello World 1234's  <|im_start|>user\n\n\tdef f(x):\r\n    return x**2 # 3.14159",
    "Ünïcode: café ☃ 𝔘𝔫𝔦 日本語 العربية\u00a0non-breaking, can't won't I'LL",
    " leading and trailing   ",
    "<file_sep><|endoftext|>text after",
    "१२३ ½ Ⅻ ²",
]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        spec = importlib.util.spec_from_file_location("smollm2_parity", BENCH / "smollm2_parity.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base() -> GgufModel:
    return read_base(SMOLLM2)


@pytest.fixture(scope="module")
def server(bench: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """llama.cpp with the weights in float32."""
    written = tmp_path_factory.mktemp("gguf") / "float32.gguf"
    bench.write_float32(bench.weights_path(), written)
    with bench.llama_cpp(written, exact=True) as running:
        written.unlink()
        yield running


def test_what_comes_next_is_what_llama_cpp_says(bench: ModuleType, base: GgufModel, server: object) -> None:
    model = build_model(base).eval().requires_grad_(False)
    tokens = base.tokenizer.encode(LICENCE.read_text()[3000:]).ids[: bench.LEAD_IN + POSITIONS]
    found = bench.compare(server, model, [tokens])
    assert found["positions"] == POSITIONS
    assert found["top1_agreement"] >= 0.97, found
    assert found["median_abs_dlogprob"] <= 1e-3, found


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_same_tokens_and_tokens_the_same_text(server: object, base: GgufModel, text: str) -> None:
    body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
    request = Request(f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=120) as response:
        theirs = json.loads(response.read())["tokens"]
    ours = base.tokenizer.encode(text, add_special_tokens=False).ids
    assert ours == theirs
    assert base.tokenizer.decode(ours, skip_special_tokens=False) == text


def test_the_weights_leave_the_checkpoint_as_they_came(base: GgufModel) -> None:
    model = build_model(base)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in base.state.items())
