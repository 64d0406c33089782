"""Engines for one contract: the embedded one, and the adapters of vLLM and SGLang before fakes of these servers' documented HTTP, which draw with an embedded engine.

A ground's engine draws as many tokens as it is let (`let`), so that no test depends on which of two threads is quicker.
"""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from abruzzi.contracts.rollout import Ending, Segment
from abruzzi_jobs.export import export_huggingface, import_huggingface
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.rl.engine.front import AsyncEngine
from abruzzi_jobs.rl.engine.protocol import Engine, Generated, Request
from abruzzi_jobs.rl.engine.served import ServedEngine
from abruzzi_jobs.rl.engine.sglang import SglangEngine
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.engine.vllm import VllmEngine

CONFIG = ModelConfig(
    vocab_size=96, hidden_size=32, num_layers=1, num_heads=2, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=4,
    v_head_dim=8, intermediate_size=32, moe_intermediate_size=16, num_experts=4, num_experts_per_token=2, max_position=256,
)  # fmt: skip
SECONDS = 240


class Held(TorchEngine):
    """Stands still where it has drawn what it may."""

    may_draw = 10**9

    def step(self) -> list[Generated]:
        if self.stats().generated_tokens >= self.may_draw and not self._is_paused:
            threading.Event().wait(0.002)
            ended, self._ended = self._ended, []
            return ended
        return super().step()


class Ground:
    def __init__(self, engine: Engine, drawing: Held) -> None:
        self.engine, self.drawing = engine, drawing

    def let(self, tokens: int) -> None:
        """So many are drawn, and no more."""
        self.drawing.may_draw = self.drawing.stats().generated_tokens + tokens
        self.wait(lambda: self.drawing.stats().generated_tokens >= self.drawing.may_draw)

    def free(self) -> None:
        self.drawing.may_draw = 10**9

    def wait(self, condition: Callable[[], object]) -> list[Generated]:
        """Steps until it holds; what ended meanwhile."""
        end, ended = time.monotonic() + SECONDS, []
        while not condition():
            assert time.monotonic() < end, self.engine.stats()
            ended += self.engine.step()
        return ended

    def ended(self, count: int = 1) -> dict[str, Segment]:
        end, found = time.monotonic() + SECONDS, list[Generated]()
        while len(found) < count:
            assert time.monotonic() < end, (self.engine.stats(), found)
            found += self.engine.step()
        return {one.request_id: one.segment for one in found}


class Fake:
    """What both servers do, said in the words of either by a subclass."""

    def __init__(self, model: KimiK2) -> None:
        self.drawing = Held(copy.deepcopy(model))
        self.calls: list[str] = []
        self.fails = ""
        """The path of a call that is answered by an error."""
        self.overtaken = ""
        """The path of a call that only comes in when another has been answered."""
        self.answered = asyncio.Event()
        self.awake = {"weights", "kv_cache"}
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def routes(self) -> list[web.RouteDef]:
        raise TypeError("a subclass says which")

    def __enter__(self) -> Fake:
        self._thread.start()
        assert self._started.wait(SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._over.set)
        self._thread.join(SECONDS)

    async def _serve(self) -> None:
        @web.middleware
        async def told(request: web.Request, handler: Any) -> Any:
            self.calls.append(request.path_qs)
            if request.path == self.fails:
                return web.json_response({"error": "out of memory"}, status=500)
            if request.path == self.overtaken:
                await self.answered.wait()
            response = await handler(request)
            self.answered.set()
            return response

        self.loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(middlewares=[told], client_max_size=1 << 26)
        app.add_routes(self.routes())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        async with AsyncEngine(self.drawing) as self.front:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._started.set()
            await self._over.wait()
            await runner.cleanup()

    async def draw(self, name: str, tokens: list[int], limit: int, sampling: dict[str, Any], seed: int) -> Segment:
        assert sampling["ignore_eos"]
        return await self.front.generate(
            Request(
                id=name, tokens=tuple(tokens), max_tokens=limit, temperature=sampling["temperature"], top_p=sampling["top_p"],
                seed=seed, stop_tokens=frozenset(sampling["stop_token_ids"]),
            )
        )  # fmt: skip

    async def score(self, tokens: list[int]) -> list[float]:
        return (await self.front.call(lambda engine: engine.logprobs([tokens], temperature=1.0)))[0]

    async def load(self, folder: str) -> None:
        assert "weights" in self.awake, "weights were loaded where there was no memory for them"
        _, state = import_huggingface(Path(folder))

        def act(engine: Engine) -> None:
            engine.begin_update(engine.version + 1)
            engine.load_bucket(state.items())
            engine.finish_update(engine.version + 1)

        await self.front.call(act)

    async def release(self, level: Any) -> None:
        self.awake -= {"weights", "kv_cache"} if level == 2 else {"kv_cache"}
        await self.front.call(lambda engine: engine.sleep(level))

    async def take_back(self, parts: list[str]) -> None:
        self.awake |= set(parts)
        if "kv_cache" in parts:
            await self.front.call(lambda engine: engine.wake())


_WORDS = {Ending.STOP: "stop", Ending.LENGTH: "length", Ending.PAUSED: "abort", Ending.ABORTED: "abort"}


class FakeVllm(Fake):
    def routes(self) -> list[web.RouteDef]:
        post = web.post
        return [
            post("/inference/v1/generate", self._generate), post("/abort_requests", self._abort), post("/pause", self._pause),
            post("/resume", self._resume), post("/sleep", self._sleep), post("/wake_up", self._wake),
            post("/collective_rpc", self._rpc), post("/reset_prefix_cache", self._reset),
        ]  # fmt: skip

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        sampling = body["sampling_params"]
        if "prompt_logprobs" in sampling:
            scores = await self.score(body["token_ids"])
            found = [
                {str(token): {"logprob": score}} for token, score in zip(body["token_ids"][1:], scores, strict=True)
            ]
            return web.json_response({"choices": [], "prompt_logprobs": [None, *found]})
        assert body["cache_salt"].startswith("version-")
        segment = await self.draw(
            body["request_id"], body["token_ids"], sampling["max_tokens"], sampling, sampling["seed"]
        )
        content = [{"token": "", "logprob": logprob} for logprob in segment.logprobs]
        choice = {
            "index": 0, "token_ids": segment.tokens, "logprobs": {"content": content}, "finish_reason": _WORDS[segment.ending],
        }  # fmt: skip
        return web.json_response({"request_id": body["request_id"], "choices": [choice], "prompt_logprobs": None})

    async def _abort(self, request: web.Request) -> web.Response:
        for name in (await request.json())["request_ids"]:
            await self.front.cancel(name)
        return web.json_response({})

    async def _pause(self, request: web.Request) -> web.Response:
        await self.front.pause(request.query["mode"])
        return web.json_response({"status": "paused"})

    async def _resume(self, request: web.Request) -> web.Response:
        await self.front.resume()
        return web.json_response({"status": "resumed"})

    async def _sleep(self, request: web.Request) -> web.Response:
        await self.release(int(request.query["level"]))
        return web.Response()

    async def _wake(self, request: web.Request) -> web.Response:
        await self.take_back(request.query.getall("tags"))
        return web.Response()

    async def _rpc(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert body["method"] == "reload_weights"
        await self.load(body["kwargs"]["weights_path"])
        return web.json_response({"results": [None]})

    async def _reset(self, request: web.Request) -> web.Response:
        return web.Response()


class FakeSglang(Fake):
    def routes(self) -> list[web.RouteDef]:
        post = web.post
        return [
            post("/generate", self._generate), post("/abort_request", self._abort), post("/pause_generation", self._pause),
            post("/continue_generation", self._resume), post("/release_memory_occupation", self._sleep),
            post("/resume_memory_occupation", self._wake), post("/update_weights_from_disk", self._load),
        ]  # fmt: skip

    async def _generate(self, request: web.Request) -> web.Response:
        body = await request.json()
        sampling, tokens = body["sampling_params"], body["input_ids"]
        assert body["return_logprob"]
        if not sampling["max_new_tokens"]:
            scores = await self.score(tokens)
            found = [[score, token, None] for token, score in zip(tokens, [None, *scores], strict=True)]
            return web.json_response({"text": "", "meta_info": {"input_token_logprobs": found}})
        segment = await self.draw(body["rid"], tokens, sampling["max_new_tokens"], sampling, sampling["sampling_seed"])
        drawn = [[logprob, token, None] for logprob, token in zip(segment.logprobs, segment.tokens, strict=True)]
        meta = {"id": body["rid"], "finish_reason": {"type": _WORDS[segment.ending]}, "output_token_logprobs": drawn}
        return web.json_response({"text": "", "output_ids": segment.tokens, "meta_info": meta})

    async def _abort(self, request: web.Request) -> web.Response:
        await self.front.cancel((await request.json())["rid"])
        return web.Response()

    async def _pause(self, request: web.Request) -> web.Response:
        mode = (await request.json())["mode"]
        await self.front.pause({"abort": "abort", "retract": "keep"}[mode])
        return web.Response(text="Generation paused successfully.")

    async def _resume(self, request: web.Request) -> web.Response:
        await self.front.resume()
        return web.Response(text="Generation continued successfully.")

    async def _sleep(self, request: web.Request) -> web.Response:
        await self.release(2 if "weights" in (await request.json())["tags"] else 1)
        return web.Response()

    async def _wake(self, request: web.Request) -> web.Response:
        tags = (await request.json())["tags"]
        assert not set(tags) & self.awake, "only what was released can be resumed"
        await self.take_back(tags)
        return web.Response()

    async def _load(self, request: web.Request) -> web.Response:
        body = await request.json()
        await self.load(body["model_path"])
        return web.json_response({"success": True, "message": "", "num_paused_requests": 0})


SERVERS: dict[str, tuple[type[Fake], type[ServedEngine]]] = {
    "vllm": (FakeVllm, VllmEngine),
    "sglang": (FakeSglang, SglangEngine),
}


@contextmanager
def served(kind: str, folder: Path) -> Iterator[tuple[Ground, Fake]]:
    model = KimiK2(CONFIG, seed=1)
    make_fake, make_engine = SERVERS[kind]
    with make_fake(model) as fake:
        engine = make_engine(
            fake.url, positions=CONFIG.max_position, vocab_size=CONFIG.vocab_size, folder=folder, deadline_s=SECONDS,
            shapes={name: (tuple(tensor.shape), tensor.dtype) for name, tensor in model.state_dict().items()},
            write=lambda state, to: export_huggingface(state, CONFIG, to),
        )  # fmt: skip
        try:
            yield Ground(engine, fake.drawing), fake
        finally:
            fake.drawing.may_draw = 10**9
            engine.close()


@contextmanager
def ground(kind: str, folder: Path) -> Iterator[Ground]:
    if kind == "embedded":
        engine = Held(KimiK2(CONFIG, seed=1))
        yield Ground(engine, engine)
        return
    with served(kind, folder) as (made, _):
        yield made
