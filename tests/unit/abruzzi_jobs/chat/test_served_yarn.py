"""A checkpoint served with other positions than its own: the server is told of them, and answers of before are not taken for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from abruzzi.contracts.endpoint import CheckpointEndpoint, EndpointKind
from abruzzi.contracts.training import YarnConfig
from abruzzi_jobs.chat.servers import start
from abruzzi_jobs.chat.stage import _identity

PLAIN = CheckpointEndpoint(
    kind=EndpointKind.CHECKPOINT, checkpoint="pretrain.checkpoint", tokenizer="tokenize.tokenizer"
)
YARN = YarnConfig(factor=4.0, original_max_position=1024)
TURNED = PLAIN.model_copy(update={"yarn": YARN})


@pytest.mark.parametrize(("endpoint", "told"), [(PLAIN, None), (TURNED, YARN.model_dump())])
def test_the_server_is_told_how_positions_turn(
    endpoint: CheckpointEndpoint, told: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []

    @asynccontextmanager
    async def child(name: str, module: str, settings: dict[str, Any], *, log: Path | None) -> AsyncIterator[Any]:
        given.append(settings)
        yield SimpleNamespace(url="http://127.0.0.1:1", key="k", why_down=lambda: "")

    monkeypatch.setattr(start, "child_server", child)

    async def open_it() -> None:
        folders = {"own.checkpoint": Path("c"), "own.tokenizer": Path("t")}
        async with start.start_endpoint("own", endpoint, folders=folders):
            pass

    asyncio.run(open_it())
    assert given == [{"checkpoint": "c", "tokenizer": "t", "threads": None, "yarn": told}]


def test_answers_are_kept_apart_by_how_positions_turned() -> None:
    inputs = {"own.checkpoint": SimpleNamespace(digest="sha256:1")}
    context: Any = SimpleNamespace(spec=SimpleNamespace(inputs=inputs))
    other = TURNED.model_copy(update={"yarn": YarnConfig(factor=8.0, original_max_position=1024)})
    found = [_identity(context, "own", endpoint) for endpoint in (PLAIN, TURNED, other)]
    assert found[0] == "sha256:1", "as before there was a choice: answers in the logs stay good"
    assert len(set(found)) == 3
