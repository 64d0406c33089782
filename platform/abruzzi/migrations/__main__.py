"""`python -m abruzzi.migrations`: upgrade the database of ABRUZZI_OWNER_DATABASE_URL."""

from __future__ import annotations

from abruzzi.kit.settings import Settings
from abruzzi.migrations import upgrade


def main() -> None:
    settings = Settings()
    roles = {"abruzzi_app": settings.database_url, "abruzzi_controller": settings.controller_database_url}
    upgrade(
        settings.require("owner_database_url"), {name: url.get_secret_value() for name, url in roles.items() if url}
    )


if __name__ == "__main__":
    main()
