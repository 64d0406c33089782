"""`python tests/simulation/replay.py SEED`: one seed again, with everything that happened."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulation import simulate as simulation


def main(seed: int) -> int:
    kept: list[simulation.World] = []
    remember = simulation.World.__post_init__

    def keep(world: simulation.World) -> None:
        remember(world)
        kept.append(world)

    simulation.World.__post_init__ = keep  # type: ignore[method-assign]
    try:
        simulation.simulate(seed)
    except AssertionError as error:
        sys.stdout.write("\n".join([*kept[0].trace.lines, f"VIOLATION {error}", ""]))
        return 1
    sys.stdout.write("\n".join([*kept[0].trace.lines, f"seed {seed}: all rules held", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
