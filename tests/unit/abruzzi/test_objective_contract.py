"""The objective's tables refuse what cannot be meant."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from abruzzi.contracts.objective import DifficultyBand, ObjectiveConfig, TemperatureSchedule, TokenBudget
from abruzzi.contracts.rl import RlConfig

RL: dict[str, Any] = {"environments": [{"name": "arithmetic"}], "budget": {"tokens": 64}}


@pytest.mark.parametrize(
    ("table", "values", "said"),
    [
        (ObjectiveConfig, {"tau": 0.0}, "tau"),
        (ObjectiveConfig, {"loss": "ppo"}, "loss"),
        (ObjectiveConfig, {"temprature": 1.0}, "temprature"),
        (TemperatureSchedule, {"end": 0.7}, "a schedule has both"),
        (TemperatureSchedule, {"iterations": 5}, "a schedule has both"),
        (DifficultyBand, {"attempts": 4, "k": 8}, "cannot be told from 4 attempts"),
        (DifficultyBand, {"low": 0.9, "high": 0.1}, "low"),
        (TokenBudget, {"tokens": 0}, "tokens"),
        (RlConfig, RL | {"ptx_sequences": 4}, "set both, or neither"),
        (RlConfig, RL | {"objective": {"ptx_weight": 0.1}}, "set both, or neither"),
    ],
)
def test_a_table_names_what_cannot_be_meant(table: Any, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        table.model_validate(values)


def test_defaults_are_the_papers_objective() -> None:
    config = ObjectiveConfig()
    assert (config.loss, config.advantage, config.partial, config.ptx_weight) == ("opmd", "mean", "anchor_current", 0.0)
