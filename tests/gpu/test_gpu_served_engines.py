"""The contract of engines with the real servers, where one is installed beside a GPU: tests/unit/abruzzi_jobs/rl/test_served_engines.py holds the fakes to the same.

PYTHONPATH=jobs:platform:tests python -m pytest --noconftest -c /dev/null -p no:cacheprovider tests/gpu/test_gpu_served_engines.py
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch
from ports import free_port

from abruzzi.contracts.rollout import Ending
from abruzzi_jobs.export import export_huggingface
from abruzzi_jobs.models import Llama, LlamaConfig
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.sglang import SglangEngine
from abruzzi_jobs.rl.engine.vllm import VllmEngine

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run on a machine with a GPU"),
]
CONFIG = LlamaConfig(
    vocab_size=512, hidden_size=256, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64, intermediate_size=512, max_position=1024
)  # fmt: skip
SERVERS = {
    "vllm": (VllmEngine, ["vllm", "serve"], ["--enable-sleep-mode", "--logprobs-mode", "processed_logprobs", "--generation-config", "vllm", "--skip-tokenizer-init"]),
    "sglang": (SglangEngine, [sys.executable, "-m", "sglang.launch_server", "--model-path"], ["--enable-memory-saver", "--skip-tokenizer-init"]),
}  # fmt: skip


def is_there(kind):
    return shutil.which("vllm") is not None if kind == "vllm" else shutil.which("sglang") is not None


@pytest.fixture(params=sorted(SERVERS))
def engine(request, tmp_path):
    if not is_there(request.param):
        pytest.skip(f"{request.param} is not on the PATH: install it in an environment of its own")
    make, command, options = SERVERS[request.param]
    model = Llama(CONFIG, seed=1).to(torch.bfloat16)
    export_huggingface(model.state_dict(), CONFIG, tmp_path / "model")
    port = free_port()
    more = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_ENABLE_SCALE_OUT_ENDPOINTS": "1"}
    server = subprocess.Popen(
        [*command, str(tmp_path / "model"), "--port", str(port), *options],
        env={**os.environ, **more},
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 600
        while True:
            assert server.poll() is None, "the server has ended; its words are above"
            assert time.monotonic() < end, "the server has not answered within 600 s"
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(1)
        made = make(
            url, positions=CONFIG.max_position, vocab_size=CONFIG.vocab_size, folder=tmp_path,
            shapes={name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()},
            write=lambda state, to: export_huggingface(state, CONFIG, to),
        )  # fmt: skip
        yield made
        made.close()
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def asked(name, tokens, max_tokens):
    return Request(id=name, tokens=tokens, max_tokens=max_tokens, temperature=0.7, seed=3, stop_tokens=frozenset({1}))


def ended(engine, count=1):
    end, found = time.monotonic() + 240, []
    while len(found) < count:
        assert time.monotonic() < end, engine.stats()
        found += engine.step()
    return {one.request_id: one.segment for one in found}


def test_a_real_server_draws_pauses_sleeps_and_takes_weights(engine):
    engine.submit(asked("a", (5, 6, 7), 12))
    segment = ended(engine)["a"]
    assert len(segment.tokens) == len(segment.logprobs) > 0
    assert segment.ending in (Ending.LENGTH, Ending.STOP)
    before = engine.logprobs([(5, 6, 7, 8)], temperature=1.0)[0]
    engine.submit(asked("b", (5, 6, 7), 900))
    [paused] = engine.pause("abort")
    assert paused.segment.ending in (Ending.PAUSED, Ending.STOP)
    engine.sleep(2)
    engine.begin_update(4)
    state = Llama(CONFIG, seed=1).to(torch.bfloat16).state_dict()
    engine.load_bucket((name, 3 * tensor) for name, tensor in state.items())
    engine.finish_update(4)
    engine.wake()
    engine.resume()
    engine.submit(asked("c", (5, 6, 7, *paused.segment.tokens), 5))
    assert ended(engine)["c"].policy_version == 4
    assert engine.logprobs([(5, 6, 7, 8)], temperature=1.0)[0] != pytest.approx(before, abs=1e-3)
