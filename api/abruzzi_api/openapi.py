"""`python -m abruzzi_api.openapi`: writes the committed description of the API, which the web client is generated from."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import SecretStr

from abruzzi.kit.settings import Settings
from abruzzi_api.app import create_app

PATH = Path(__file__).with_name("openapi.json")


def describe() -> str:
    """Needs no database."""
    app = create_app(
        Settings(database_url=SecretStr("postgresql://nobody@localhost/none"), signing_key=SecretStr("none"))
    )
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(describe())
    sys.stdout.write(f"{PATH.name} written\n")
