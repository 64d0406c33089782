"""Small tool servers for tests: one that behaves, and changes that make it misbehave in one way each."""

from __future__ import annotations

import sys

_GOOD = """
import json, os, sys, time

def send(message):
    sys.stdout.write(json.dumps(message) + "\\n")
    sys.stdout.flush()

def answer(message, result):
    send({"jsonrpc": "2.0", "id": message["id"], "result": result})

def refuse(message, code, text):
    send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": text}})

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
TOOLS = [{"name": "double", "description": "Twice n", "inputSchema": NUMBER, "outputSchema": NUMBER}]

def initialize(message):
    answer(message, {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}, "serverInfo": {"name": "test", "version": "1"}})

def list_tools(message):
    answer(message, {"tools": TOOLS})

def call(message):
    n = 2 * message["params"]["arguments"]["n"]
    answer(message, {"content": [{"type": "text", "text": str(n)}], "structuredContent": {"n": n}})

#CHANGE#
for line in sys.stdin:
    message = json.loads(line)
    handler = {"initialize": initialize, "tools/list": list_tools, "tools/call": call}.get(message.get("method"))
    if handler and "id" in message:
        handler(message)
"""


def server(change: str = "") -> list[str]:
    """The command line of the good server with `change` (Python, redefining what it names) applied."""
    return [sys.executable, "-I", "-S", "-c", _GOOD.replace("#CHANGE#", change)]
