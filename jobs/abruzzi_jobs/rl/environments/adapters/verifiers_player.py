"""Plays one task of `verifiers` (its v1 API) with the policy at OPENAI_BASE_URL. Run by an interpreter that has that package and, it may be, nothing of ours:
its pins are other than ours. Standard input: the task's data as JSON; the last line of standard output: what became of it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import verifiers.v1 as vf
from verifiers.v1.utils.loaders import load_taskset, taskset_config_type

MESSAGE = 2000
"""Characters of an error: whoever asks keeps the end of what is written here, and the last line has to be whole in it."""


async def play(asked: dict[str, Any]) -> dict[str, Any]:
    config = taskset_config_type(asked["taskset"]).model_validate({"id": asked["taskset"], **asked["config"]})
    task = next(iter(load_taskset(config).include(idx=[asked["index"]])), None)
    if task is None:
        raise SystemExit(f"The taskset {asked['taskset']} has no task {asked['index']}: give fewer as `tasks`.")
    agent = vf.AgentConfig.model_validate(
        {
            "model": "policy",
            "harness": asked["harness"],
            "runtime": asked["runtime"],
            "client": {"type": "eval", "base_url": os.environ["OPENAI_BASE_URL"], "api_key_var": "OPENAI_API_KEY"},
        }
    )
    async with vf.Agent(agent) as player:
        trace = await player.run(task)
    return {
        "rewards": {name: None if reward is None else reward.value for name, reward in trace.rewards.items()},
        "metrics": {name: value for name, value in trace.metrics.items() if value is not None},
        "errors": [f"{error.type}: {error.message[:MESSAGE]}" for error in trace.errors],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(play(json.load(sys.stdin)))) + "\n")
