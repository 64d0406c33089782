"""Import from tool servers in their boxes: the good ones are kept with version, lock and licence, the bad ones quarantined by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tool_servers import server as tool_server

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.sandbox import box, python_files
from abruzzi_jobs.synthesis import importer
from abruzzi_jobs.synthesis.catalogue import MANIFEST_FILE, TOOLS_FILE, read_catalogue, write_catalogue
from abruzzi_jobs.synthesis.importer import import_servers
from abruzzi_jobs.synthesis.mcp import Patience
from abruzzi_jobs.synthesis.servers import shipped
from abruzzi_jobs.synthesis.servers.catalogue import ProbeCall
from abruzzi_jobs.synthesis.servers.environments import Environment

CHANGES = {
    "mcp-server-time": "",
    "mcp-server-git": "def call(message): sys.exit(3)",
    "mcp-server-sqlite": "def list_tools(message):\n while True: print('x' * 999)",
    "mcp-server-calculator": "def call(message): answer(message, {'content': [{'type': 'text', 'text': '9'}], 'structuredContent': {'n': 9}})",
    "mcp-server-math": "import socket\nsocket.create_connection(('192.0.2.1', 80), 5)",
}


@pytest.fixture
def changed_servers(monkeypatch):
    def prepare(server, root):
        argv = tuple(tool_server(CHANGES[server.name]))
        return Environment(argv=argv, readable=python_files(Path(sys.executable)), licence="MIT")

    monkeypatch.setattr(importer, "prepare", prepare)
    call = {"tool": "double", "arguments": {"n": 4}, "expects": "8"}
    return [shipped()[name].model_copy(update={"prepare": {}, "call": ProbeCall(**call)}) for name in CHANGES]


async def test_the_good_server_is_kept_and_each_bad_one_is_quarantined_with_what_it_did(changed_servers, tmp_path):
    patience = Patience(start_seconds=120, answer_seconds=120, noise_lines=20)
    imported = await import_servers(changed_servers, root=tmp_path, patience=patience)
    faults = {fault["server"]: (fault["code"], fault["reason"]) for fault in imported.quarantined}
    assert [(server.name, server.tools, server.call["answer"]) for server in imported.servers] == [
        ("mcp-server-time", 1, "8")
    ]
    assert {name: code for name, (code, _) in faults.items()} == {
        "mcp-server-git": "server_crashed",
        "mcp-server-sqlite": "server_garbled",
        "mcp-server-calculator": "server_lied",
        "mcp-server-math": "server_crashed",
    }, faults
    assert "unreachable" in faults["mcp-server-math"][1]
    tool = imported.tools[0]
    assert tool.source == f"mcp:mcp-server-time@{shipped()['mcp-server-time'].version}"

    record = write_catalogue(tmp_path / "tools", imported.tools, quarantined=imported.quarantined)
    assert (record["real"], len(record["quarantined"])) == (1, 4)
    assert [spec.digest for spec in read_catalogue(tmp_path / "tools")] == [tool.digest]


async def test_without_a_sandbox_nothing_is_started(changed_servers, monkeypatch, tmp_path):
    monkeypatch.setattr(box, "_fault", lambda name: "not permitted")
    with pytest.raises(AbruzziError, match="cannot hold a sandbox"):
        await import_servers(changed_servers, root=tmp_path)


async def test_a_catalogue_is_whole_or_not_there_and_is_never_written_over(changed_servers, tmp_path):
    write_catalogue(tmp_path / "tools", [])
    with pytest.raises(AbruzziError, match="there is something already"):
        write_catalogue(tmp_path / "tools", [])
    (tmp_path / "tools" / TOOLS_FILE).write_bytes(b"cut short")
    with pytest.raises(AbruzziError, match="9 bytes with another digest"):
        read_catalogue(tmp_path / "tools")
    (tmp_path / "tools" / MANIFEST_FILE).write_text(json.dumps({"tools": 0}))
    with pytest.raises(AbruzziError, match="not a catalogue"):
        read_catalogue(tmp_path / "tools")
    assert [path.name for path in tmp_path.iterdir()] == ["tools"]


def test_every_shipped_server_is_pinned_by_hashes_and_names_no_place_to_take_it_from():
    assert len(shipped()) >= 12
    for server in shipped().values():
        assert server.version
        for path in server.lock_files:
            text = path.read_text()
            assert "://" not in text or server.runtime == "node", path
            assert '"resolved"' not in text, path
        if server.runtime == "node":
            packages = json.loads(server.lock_files[1].read_text())["packages"]
            assert all(package.get("integrity") for name, package in packages.items() if name), server.name
        else:
            for path in server.lock_files:
                assert path.read_text().count("==") <= path.read_text().count("--hash=sha256:"), path
