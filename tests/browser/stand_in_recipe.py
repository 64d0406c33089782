"""Recipes of `container` stages for the browser tests: the shape of a real run without its weight."""

from __future__ import annotations

import json
import sys
from pathlib import Path

STAGE = Path(__file__).with_name("stand_in_stage.py")


def recipe(
    *, name: str = "tiny-k2", steps: int = 200, pause: float = 0.05, ranks: int = 1, seed: int = 1, peak_lr: str = "2e-3", layers: int = 4,
    clip: bool = True, hold_at: int | None = None, hold_file: Path | None = None, fail: str | None = None, fail_rank: int | None = None,
    only: str = "corpus tokenize pretrain evaluate", gate: str | None = "pretrain.loss <= 4.5", say: str = "", say_times: int = 1,
) -> str:  # fmt: skip
    """corpus → tokenize → pretrain → evaluate, or `only` some of them. `fail` names the stage that ends with a user error; with `fail_rank` that
    rank alone does, and the others go on until they are stopped.

    `gate` stands before evaluate; `say` is a line that every stage prints, `say_times` times with its number before it.
    """
    hold = {"HOLD_AT": str(hold_at), "HOLD_FILE": str(hold_file)} if hold_at is not None else {}
    quick = {"STEPS": "40", "BATCH": "10", "PAUSE": "0.02"}
    train = {"ROLE": "train", "STEPS": str(steps), "BATCH": "5", "PAUSE": str(pause), "SEED": str(seed), "PEAK_LR": peak_lr, "LAYERS": str(layers),
             "CLIP": "1" if clip else "0", **hold}  # fmt: skip
    roles = {
        "corpus": (1, {"ROLE": "corpus", **quick}),
        "tokenize": (1, {"ROLE": "tokenize", **quick}),
        "pretrain": (ranks, train),
        "evaluate": (1, {"ROLE": "evaluate", **quick, "SEED": str(seed)}),
    }
    text = f'version = 1\nname = "{name}"\n'
    needs: list[str] = []
    for stage_id in only.split():
        world, env = roles[stage_id]
        settings = {
            **env,
            **({"EXIT_CODE": "64"} if stage_id == fail else {}),
            **({"FAIL_RANK": str(fail_rank)} if stage_id == fail and fail_rank is not None else {}),
            **({"SAY": say, "SAY_TIMES": str(say_times)} if say else {}),
        }
        guarded = f"gate = {json.dumps(gate)}\n" if gate and stage_id == "evaluate" and needs else ""
        inputs = (
            'inputs = { checkpoint = "pretrain.checkpoint" }\n'
            if stage_id == "evaluate" and "pretrain" in needs
            else ""
        )
        pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in settings.items())
        text += f"""
[[stage]]
id = "{stage_id}"
kind = "container"
needs = {json.dumps(needs)}
{inputs}{guarded}[stage.container]
command = {json.dumps([sys.executable, str(STAGE)])}
env = {{ {pairs} }}
[stage.resources]
ranks = {world}
"""
        needs = [stage_id]
    return text
