"""The built dashboard: static files with a fallback to index.html, so that every address of the page can be opened directly."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

_ABSENT = """<!doctype html><meta charset="utf-8"><title>Abruzzi</title><style>body{font:15px system-ui;margin:4rem auto;max-width:40rem}</style>
<h1>The dashboard is not built</h1><p>The API works. Run <code>make web</code> in the checkout, or set <code>ABRUZZI_WEB_DIR</code> to a built dashboard.</p>"""


def mount(app: FastAPI, folder: Path | None) -> None:
    """Last of all routes. Hashed assets are cached for ever, the page itself never."""
    index = folder / "index.html" if folder else None
    if folder is not None and (folder / "assets").is_dir():
        app.mount("/assets", _Immutable(directory=folder / "assets"), name="assets")

    @app.get("/{path:path}", include_in_schema=False)
    async def page(path: str):  # type: ignore[no-untyped-def]
        if path.startswith(("api/", "assets/")):
            raise HTTPException(404, "There is nothing here.")
        if folder is not None and path in _top_files(folder):
            return FileResponse(folder / path)
        if index is not None and index.is_file():
            return FileResponse(index, headers={"Cache-Control": "no-cache"})
        return HTMLResponse(_ABSENT, 503 if path else 200)


class _Immutable(StaticFiles):
    async def get_response(self, path, scope):  # type: ignore[no-untyped-def]
        response = await super().get_response(path, scope)
        if response.status_code == 200:
            response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def _top_files(folder: Path) -> set[str]:
    """Names such as favicon.svg; looked up, never joined from what the user sent."""
    return {f.name for f in folder.iterdir() if f.is_file()} - {"index.html"}
