"""vLLM's server as an engine: tokens in, tokens out by `/inference/v1/generate`, the rest by its endpoints for reinforcement learning.

Start it with VLLM_SERVER_DEV_MODE=1 and VLLM_ENABLE_SCALE_OUT_ENDPOINTS=1, on loopback or behind something that asks who calls: these endpoints do not.

    vllm serve MODEL --enable-sleep-mode --enable-prefix-caching --logprobs-mode processed_logprobs --generation-config vllm

`processed_logprobs`: of the distribution that is drawn from, temperature included. Written to the protocol of vLLM 0.33 (its routers' source).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from abruzzi.contracts.rollout import Ending
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.served import Answer, EngineServerFailed, ServedEngine, seed_of

_ENDINGS = {"stop": Ending.STOP, "length": Ending.LENGTH, "abort": Ending.ABORTED}


class VllmEngine(ServedEngine):
    async def _generate(self, request: Request) -> Answer:
        sampling = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": seed_of(request),
            "stop_token_ids": sorted(request.stop_tokens),
            "ignore_eos": True,  # what ends a turn is the template's to say
            "logprobs": 0,
            "detokenize": False,
        }
        # The salt is the version's: no block of the cache is found by a request of other weights.
        body = {
            "request_id": request.id,
            "token_ids": list(request.tokens),
            "sampling_params": sampling,
            "cache_salt": f"version-{self.version}",
            "stream": False,
        }
        [choice] = (await self._post("/inference/v1/generate", body, deadline_s=0))["choices"]
        return _answer(choice)

    async def _abort(self, request_id: str) -> None:
        await self._post("/abort_requests", {"request_ids": [request_id]})

    async def _pause_server(self, mode: Literal["keep", "abort"]) -> None:
        await self._post(f"/pause?mode={mode}")

    async def _resume_server(self) -> None:
        await self._post("/resume")

    async def _sleep_server(self, level: Literal[1, 2]) -> None:
        await self._post(f"/sleep?level={level}")

    async def _wake_server(self, parts: Sequence[Literal["weights", "kv_cache"]]) -> None:
        await self._post("/wake_up?" + "&".join(f"tags={part}" for part in parts))

    async def _load_weights(self, folder: Path, version: int) -> None:
        told = await self._post(
            "/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        )
        if isinstance(told, dict) and told.get("error"):
            raise EngineServerFailed("reload_weights", str(told["error"]))
        await self._post("/reset_prefix_cache")

    async def _score(self, tokens: Sequence[int]) -> list[float]:
        sampling = {"max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0, "detokenize": False}
        told = await self._post("/inference/v1/generate", {"token_ids": list(tokens), "sampling_params": sampling})
        found = told["prompt_logprobs"][1:]
        return [float(at[str(token)]["logprob"]) for token, at in zip(tokens[1:], found, strict=True)]


def _answer(choice: dict[str, Any]) -> Answer:
    ending = _ENDINGS.get(choice["finish_reason"])
    if ending is None:
        raise EngineServerFailed("/inference/v1/generate", f"finish_reason is {choice['finish_reason']!r}")
    tokens = tuple(choice.get("token_ids") or ())
    content = (choice.get("logprobs") or {}).get("content") or ()
    if len(content) != len(tokens):
        raise EngineServerFailed("/inference/v1/generate", f"{len(content)} log-probabilities for {len(tokens)} tokens")
    return Answer(tokens, tuple(float(entry["logprob"]) for entry in content), ending)
