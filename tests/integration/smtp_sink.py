"""A mail server that takes every message and keeps it: enough of RFC 5321 for smtplib."""

from __future__ import annotations

import socketserver
import threading
from email import message_from_bytes
from email.message import Message


class SmtpSink:
    """Context manager."""

    def __init__(self, *, refuse: bool = False) -> None:
        self.messages: list[tuple[list[str], Message]] = []
        self.refuse = refuse

    def __enter__(self) -> SmtpSink:
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                sink._talk(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    def _talk(self, connection: socketserver.StreamRequestHandler) -> None:
        def say(line: str) -> None:
            connection.wfile.write(line.encode() + b"\r\n")

        say("220 sink")
        receivers: list[str] = []
        while line := connection.rfile.readline():
            verb = line.decode().strip().upper()
            if verb.startswith("RCPT TO"):
                receivers.append(line.decode().split("<")[1].split(">")[0])
                say("550 no such user" if self.refuse else "250 ok")
            elif verb == "DATA":
                say("354 go on")
                lines = []
                while (part := connection.rfile.readline()) != b".\r\n":
                    lines.append(part)
                self.messages.append((receivers, message_from_bytes(b"".join(lines))))
                receivers = []
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")
