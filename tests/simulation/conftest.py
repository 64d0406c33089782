"""Whatever is simulated has a clock of its own: a machine with much else to do changes no order of things, and nobody waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from simulation.virtual_time import VirtualLoop

_HERE = Path(__file__).parent


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]] | None:
    return {"virtual": VirtualLoop} if _HERE in item.path.parents else None
