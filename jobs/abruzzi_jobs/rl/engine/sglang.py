"""SGLang's server as an engine: `/generate` with token ids, the rest by its endpoints for reinforcement learning (docs: SGLang for RL systems).

    python -m sglang.launch_server --model-path MODEL --enable-memory-saver --enable-deterministic-inference

Deterministic inference is what makes draws follow from a request's own seed. Its log-probabilities are of the distribution at the request's temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from abruzzi.contracts.rollout import Ending
from abruzzi_jobs.rl.engine.protocol import Request
from abruzzi_jobs.rl.engine.served import Answer, EngineServerFailed, ServedEngine, seed_of

_ENDINGS = {"stop": Ending.STOP, "length": Ending.LENGTH, "abort": Ending.ABORTED}
_PARTS: dict[int, list[str]] = {1: ["kv_cache"], 2: ["kv_cache", "weights"]}


class SglangEngine(ServedEngine):
    _released: Sequence[str] = ()

    async def _generate(self, request: Request) -> Answer:
        sampling = {
            "max_new_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "sampling_seed": seed_of(request),
            "stop_token_ids": sorted(request.stop_tokens),
            "ignore_eos": True,  # what ends a turn is the template's to say
        }
        body = {
            "rid": request.id,
            "input_ids": list(request.tokens),
            "sampling_params": sampling,
            "return_logprob": True,
            "stream": False,
        }
        return _answer((await self._post("/generate", body, deadline_s=0))["meta_info"])

    async def _abort(self, request_id: str) -> None:
        await self._post("/abort_request", {"rid": request_id})

    async def _pause_server(self, mode: Literal["keep", "abort"]) -> None:
        await self._post("/pause_generation", {"mode": "abort" if mode == "abort" else "retract"})

    async def _resume_server(self) -> None:
        await self._post("/continue_generation")

    async def _sleep_server(self, level: Literal[1, 2]) -> None:
        await self._post("/release_memory_occupation", {"tags": _PARTS[level]})
        self._released = _PARTS[level]

    async def _wake_server(self, parts: Sequence[Literal["weights", "kv_cache"]]) -> None:
        # Only what was released can be resumed.
        if tags := [part for part in parts if part in self._released]:
            await self._post("/resume_memory_occupation", {"tags": tags})

    async def _load_weights(self, folder: Path, version: int) -> None:
        body = {"model_path": str(folder), "weight_version": str(version), "flush_cache": True}
        told = await self._post("/update_weights_from_disk", body)
        if not told["success"]:
            raise EngineServerFailed("/update_weights_from_disk", told["message"])

    async def _score(self, tokens: Sequence[int]) -> list[float]:
        sampling = {"max_new_tokens": 0, "temperature": 1.0}
        body = {"input_ids": list(tokens), "sampling_params": sampling, "return_logprob": True, "logprob_start_len": 0}
        meta = (await self._post("/generate", body))["meta_info"]
        return [float(entry[0]) for entry in meta["input_token_logprobs"][1:]]


def _answer(meta: dict[str, Any]) -> Answer:
    kind = str((meta.get("finish_reason") or {}).get("type"))
    ending = _ENDINGS.get(kind)
    if ending is None:
        raise EngineServerFailed("/generate", f"finish_reason is {kind!r}")
    drawn = meta.get("output_token_logprobs") or ()
    return Answer(tuple(int(entry[1]) for entry in drawn), tuple(float(entry[0]) for entry in drawn), ending)
