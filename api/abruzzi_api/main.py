"""`abruzzi-api`: the API with the dashboard. Settings come from the environment (abruzzi.kit.settings)."""

from __future__ import annotations

import uvicorn

from abruzzi.kit.process import hide_environment
from abruzzi.kit.settings import Settings
from abruzzi_api.app import create_app

_DRAIN_SECONDS = 5


def main() -> None:
    hide_environment()
    settings = Settings()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="info",
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        timeout_keep_alive=65,
    )


if __name__ == "__main__":
    main()
