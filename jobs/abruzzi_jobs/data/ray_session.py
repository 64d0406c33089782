"""The Ray cluster that this process is a job of."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from abruzzi.contracts.errors import AbruzziError

ENV_ADDRESS = "RAY_ADDRESS"
RETRIES = 5
"""Of a task whose node is lost; what it raises itself is not tried again."""


@contextmanager
def ray_session() -> Iterator[Any]:
    """The package `ray`, connected (RAY_ADDRESS). Raises AbruzziError where the image does not have it."""
    try:
        import ray
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            "This stage is to run on Ray, which its image does not have.",
            hint="Install abruzzi-jobs[ray], or take resources.framework out of the recipe.",
        ) from error

    ray.init(address=os.environ[ENV_ADDRESS], log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        ray.shutdown()
