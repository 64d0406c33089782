"""`python -m abruzzi.workers …`: retention by hand (with a dry run) and what side work waits, for operators."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from typing import Any

from abruzzi.kit.ground import Budget, open_ground
from abruzzi.kit.settings import Settings
from abruzzi.kit.tables import REGISTERED
from abruzzi.workers import retention, steps

assert REGISTERED
_WHOLE_DAY_SECONDS = 86400.0


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m abruzzi.workers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    retain = commands.add_parser("retention", help="remove what the policy lets go (ABRUZZI_RETENTION)")
    retain.add_argument("--dry-run", action="store_true", help="only count")
    commands.add_parser("due", help="side work that waits now")
    chosen = parser.parse_args(arguments)
    answer = asyncio.run(_answer(chosen.command, getattr(chosen, "dry_run", False)))
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


async def _answer(command: str, dry_run: bool) -> dict[str, Any]:
    async with open_ground(Settings()) as ground:
        if command == "due":
            return asdict(await steps.look(ground))
        if dry_run:
            return await retention.preview(ground)
        return (await retention.retain(ground, Budget(_WHOLE_DAY_SECONDS))).facts


if __name__ == "__main__":
    main()
