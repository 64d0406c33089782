from __future__ import annotations

import importlib
from typing import Any

from verifiers.v1 import Taskset, TasksetConfig


def taskset_config_type(taskset_id: str) -> type[TasksetConfig]:
    return TasksetConfig


def load_taskset(config: TasksetConfig) -> Taskset[Any]:
    module = importlib.import_module(config.id)
    return getattr(module, module.__all__[0])(config)
