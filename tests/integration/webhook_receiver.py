"""A receiver of webhooks over real HTTP, which checks signatures as the specification says and remembers ids."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OLD_SECONDS = 300.0


@dataclass
class WebhookReceiver:
    """Context manager. `status` is asked with the number of the request (from 1) and says what is answered."""

    secret: str = ""
    status: Callable[[int], int] = lambda number: 204
    now: Callable[[], float] = time.time
    listen_port: int = 0
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """(id, body) of every request with a right signature, repeated ones, too."""
    refused: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    """Ids of what was answered with success."""

    def __enter__(self) -> WebhookReceiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.listen_port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def effects(self) -> dict[str, dict[str, Any]]:
        """Bodies by id: what a receiver that remembers ids does."""
        return dict(self.requests)

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        if fault := self._fault(handler, body):
            self.refused.append(fault)
            handler.send_response(401)
        else:
            delivery_id = handler.headers["webhook-id"]
            self.requests.append((delivery_id, json.loads(body)))
            status = self.status(len(self.requests))
            if status < 300:
                self.answered.append(delivery_id)
            handler.send_response(status)
        handler.end_headers()

    def _fault(self, handler: BaseHTTPRequestHandler, body: bytes) -> str | None:
        delivery_id, timestamp = handler.headers["webhook-id"], handler.headers["webhook-timestamp"]
        if abs(self.now() - int(timestamp)) > OLD_SECONDS:
            return "old"
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        signed = hmac.new(key, f"{delivery_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
        if handler.headers["webhook-signature"] != "v1," + base64.b64encode(signed).decode():
            return "signature"
        return None
