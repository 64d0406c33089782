"""`python -m abruzzi_operators.launcher DIR`: run the attempt whose spec.json lies in DIR."""

import sys
from pathlib import Path

from abruzzi_operators.launcher.launch import run


def main() -> int:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "spec.json").exists():
        sys.stderr.write("Usage: python -m abruzzi_operators.launcher DIR (DIR holds an attempt's spec.json)\n")
        return 2
    return run(Path(sys.argv[1]).absolute())


if __name__ == "__main__":
    sys.exit(main())
