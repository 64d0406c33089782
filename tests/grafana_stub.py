"""The part of Grafana's HTTP API that provisioning uses, as its documentation describes it (folder, data source and dashboard API of
Grafana 11 and 12): status codes, shapes, versions, and the refusals. No Grafana can be had on these machines."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


class GrafanaStub:
    """Context manager. `changes` are the writes that were accepted."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.folders: dict[str, dict[str, Any]] = {}
        self.datasources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.changes: list[str] = []
        self.is_down = False

    def __enter__(self) -> GrafanaStub:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer = stub._answer(self.command, self.path, self.headers.get("authorization", ""), body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = _do

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, method: str, path: str, authorization: str, body: dict[str, Any]) -> Answer:
        if self.is_down:
            return 503, {"message": "Service Unavailable"}
        if authorization != f"Bearer {self.token}":
            return 401, {"message": "Invalid API key"}
        for pattern, handler in (
            (r"/api/folders(?:/([\w-]+))?", self._folder),
            (r"/api/datasources(?:/uid/([\w-]+))?", self._datasource),
            (r"/api/dashboards/(?:db|uid/([\w-]+))", self._dashboard),
        ):
            if match := re.fullmatch(pattern, path):
                status, answer = handler(method, match[1], body)
                if method != "GET" and status < 300:
                    self.changes.append(f"{method} {path}")
                return status, answer
        return 404, {"message": "Not found"}

    def _folder(self, method: str, uid: str | None, body: dict[str, Any]) -> Answer:
        if method == "POST" and uid is None:
            if body.get("uid") in self.folders:
                return 409, {"message": "a folder with the same uid already exists"}
            made = {"id": len(self.folders) + 1, "uid": body["uid"], "title": body["title"], "version": 1}
            self.folders[made["uid"]] = made
            return 200, made
        if uid not in self.folders:
            return 404, {"message": "folder not found", "status": "not-found"}
        folder = self.folders[uid]
        if method == "PUT":
            if not body.get("overwrite") and body.get("version") != folder["version"]:
                return 412, {"message": "the folder has been changed by someone else"}
            folder.update(title=body["title"], version=folder["version"] + 1)
        return 200, folder

    def _datasource(self, method: str, uid: str | None, body: dict[str, Any]) -> Answer:
        if method == "POST" and uid is None:
            if any(d["name"] == body["name"] for d in self.datasources.values()):
                return 409, {"message": "data source with the same name already exists"}
            made = {
                "id": len(self.datasources) + 1,
                "orgId": 1,
                "readOnly": False,
                "isDefault": False,
                "version": 1,
                **body,
            }
            self.datasources[made["uid"]] = made
            return 200, {"datasource": made, "id": made["id"], "message": "Datasource added", "name": made["name"]}
        if uid not in self.datasources:
            return 404, {"message": "Data source not found"}
        if method == "PUT":
            self.datasources[uid] |= body | {"version": self.datasources[uid]["version"] + 1}
            return 200, {"datasource": self.datasources[uid], "message": "Datasource updated"}
        return 200, self.datasources[uid]

    def _dashboard(self, method: str, uid: str | None, body: dict[str, Any]) -> Answer:
        if method == "POST" and uid is None:
            sent = body["dashboard"]
            there = self.dashboards.get(sent["uid"])
            if body.get("folderUid") not in self.folders:
                return 400, {"message": "folder not found"}
            if there and not body.get("overwrite") and sent.get("version") != there["dashboard"]["version"]:
                return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
            version = there["dashboard"]["version"] + 1 if there else 1
            number = there["dashboard"]["id"] if there else len(self.dashboards) + 1
            self.dashboards[sent["uid"]] = {
                "dashboard": {**sent, "id": number, "version": version},
                "meta": {"folderUid": body["folderUid"], "version": version, "provisioned": False},
            }
            return 200, {"id": number, "uid": sent["uid"], "status": "success", "version": version}
        if uid not in self.dashboards:
            return 404, {"message": "Dashboard not found"}
        return 200, self.dashboards[uid]
