"""Tasks on files: read, written, moved, reckoned with. What is on the disk afterwards is asked of the server itself."""

from __future__ import annotations

import base64
import random

from abruzzi_jobs.synthesis.tasks.real.draft import Draft, Maker, Probe, given, path
from abruzzi_jobs.synthesis.tasks.real.reckoning import CALCULATOR

FILES = "@modelcontextprotocol/server-filesystem"
EDITOR, BASE64, SHELL, COMMANDS = "mcp-text-editor", "mcp-base64", "mcp-shell-server", "cli-mcp-server"
_THINGS = ("door", "depot", "archive", "greenhouse", "server room", "garage", "pool", "workshop")
_PLACES = ("Pescara", "Teramo", "Chieti", "Aquila", "Bergen", "Graz", "Porto", "Lyon")
_READ = "read_text_file"


def _code(draw: random.Random) -> tuple[str, str, int]:
    """(file, its text, the code in it)."""
    thing, code = draw.choice(_THINGS), draw.randint(10_000, 99_999)
    name = f"{thing.replace(' ', '-')}-{draw.randint(2, 9)}.txt"
    return name, f"{thing.capitalize()} in {draw.choice(_PLACES)}\nThe access code is {code}.\n", code


def _read(draw: random.Random) -> Draft:
    name, text, code = _code(draw)
    return _reading(name, text, code, (FILES, _READ, {"path": path(name)}))


def _reading(name: str, text: str, code: int, call: tuple) -> Draft:
    return Draft(
        wishes=[f"read the file {path(name)} and tell me the access code in it"],
        facts=[given("file", path(name))],
        calls=[call],
        report=f"The access code is {code}.",
        answers=[("the access code", float(code))],
        files={name: text},
    )


def _cat(draw: random.Random) -> Draft:
    name, text, code = _code(draw)
    return _reading(
        name, text, code, (SHELL, "shell_execute", {"command": ["cat", path(name)], "directory": path("").rstrip("/")})
    )


def _command(draw: random.Random) -> Draft:
    name, text, code = _code(draw)
    return _reading(name, text, code, (COMMANDS, "run_command", {"command": f"cat {name}"}))


def _line(draw: random.Random) -> Draft:
    name = f"list-{draw.randint(2, 99)}.txt"
    towns = draw.sample(_PLACES, 6)
    number = draw.randint(2, 6)
    ranges = [{"start": number, "end": number}]
    return Draft(
        wishes=[f"tell me what stands in line {number} of {path(name)}"],
        facts=[given("line", number), given("file", path(name))],
        calls=[(EDITOR, "get_text_file_contents", {"files": [{"file_path": path(name), "ranges": ranges}]})],
        report=f"Line {number} says {towns[number - 1]}.",
        answers=[("the line", (towns[number - 1],))],
        files={name: "".join(f"{town}\n" for town in towns)},
    )


def _write(draw: random.Random) -> Draft:
    name = f"note-{draw.randint(2, 99)}.txt"
    text = f"Meeting in {draw.choice(_PLACES)} on day {draw.randint(2, 28)}"
    return Draft(
        wishes=[f'write the text "{text}" into the file {path(name)}'],
        facts=[given("text", text), given("file", path(name))],
        calls=[(FILES, "write_file", {"path": path(name), "content": text})],
        report="The file is written.",
        probes=[Probe(text="The file has the text.", call=(FILES, _READ, {"path": path(name)}), contains=(text,))],
    )


def _move(draw: random.Random) -> Draft:
    name, text, code = _code(draw)
    target = f"old-{name}"
    return Draft(
        wishes=[f"tell me the access code that is in {path(name)}", f"rename that file to {path(target)}"],
        facts=[given("file", path(name)), given("new name", path(target))],
        calls=[
            (FILES, _READ, {"path": path(name)}),
            (FILES, "move_file", {"source": path(name), "destination": path(target)}),
        ],
        report=f"The access code is {code}, and the file is renamed.",
        answers=[("the access code", float(code))],
        probes=[
            Probe(text="The file has its new name.", call=(FILES, _READ, {"path": path(target)}), contains=(str(code),))
        ],
        files={name: text},
    )


def _edit(draw: random.Random) -> Draft:
    name = f"plan-{draw.randint(2, 99)}.txt"
    old, new = draw.sample(_PLACES, 2)
    keep = f"Driver: {draw.choice(('Nora', 'Pavel', 'Yuki'))}"
    edits = [{"oldText": f"Town: {old}", "newText": f"Town: {new}"}]
    return Draft(
        wishes=[f"change the town in the file {path(name)} to {new}", "leave the rest of the file as it is"],
        facts=[given("file", path(name)), given("town", new)],
        calls=[(FILES, _READ, {"path": path(name)}), (FILES, "edit_file", {"path": path(name), "edits": edits})],
        report=f"The town is {new} now.",
        probes=[
            Probe(
                text="The town is the new one, and the rest as it was.",
                call=(FILES, _READ, {"path": path(name)}),
                contains=(f"Town: {new}", keep),
                excludes=(f"Town: {old}",),
            )
        ],
        files={name: f"Town: {old}\n{keep}\n"},
    )


def _prices(draw: random.Random, towns: int) -> tuple[dict[str, str], list[int]]:
    sold = [draw.randint(120, 999) for _ in range(towns)]
    names = draw.sample(_PLACES, towns)
    return {f"sales-{n.lower()}.txt": f"Shop in {n}\nSold: {s}\n" for n, s in zip(names, sold, strict=True)}, sold


def _total(draw: random.Random) -> Draft:
    files, sold = _prices(draw, draw.randint(2, 3))
    listed = " and ".join(path(name) for name in files)
    expression = " + ".join(map(str, sold))
    reads = [(FILES, _READ, {"path": path(name)}) for name in files]
    return Draft(
        wishes=[
            f"read how much was sold from {listed}",
            "add it up with the calculator",
            f'write the line "Total: " followed by the sum into {path("total.txt")} and tell me the sum',
        ],
        facts=[
            *(given(f"file {n}", path(name)) for n, name in enumerate(files, 1)),
            given("target", path("total.txt")),
        ],
        calls=[
            *reads,
            (CALCULATOR, "calculate", {"expression": expression}),
            (FILES, "write_file", {"path": path("total.txt"), "content": f"Total: {sum(sold)}"}),
        ],
        report=f"The sum is {sum(sold)}, and total.txt says so.",
        answers=[("the sum", float(sum(sold)))],
        probes=[
            Probe(
                text="total.txt has the sum.",
                call=(FILES, _READ, {"path": path("total.txt")}),
                contains=(f"Total: {sum(sold)}",),
            )
        ],
        files=files,
    )


def _town(name: str) -> str:
    return name.removeprefix("sales-").removesuffix(".txt").capitalize()


def _gather(draw: random.Random) -> Draft:
    files, sold = _prices(draw, 3)
    best = max(zip(sold, files, strict=True))
    town, *others = [_town(name) for name in sorted(files, key=lambda name: name != best[1])]
    return Draft(
        wishes=[
            f"look into the files in {path('').rstrip('/')} whose names begin with sales",
            "tell me which shop sold most, and how much",
            f"write the name of its town into {path('best.txt')}",
        ],
        facts=[given("beginning", "sales"), given("target", path("best.txt"))],
        calls=[
            (FILES, "list_directory", {"path": path("").rstrip("/")}),
            *((FILES, _READ, {"path": path(name)}) for name in files),
            (FILES, "write_file", {"path": path("best.txt"), "content": town}),
        ],
        report=f"The shop in {town} sold most: {best[0]}.",
        answers=[("the town", (town,)), ("how much", float(best[0]))],
        probes=[
            Probe(
                text="best.txt names the town alone.",
                call=(FILES, _READ, {"path": path("best.txt")}),
                contains=(town,),
                excludes=tuple(others),
            )
        ],
        files=files,
    )


def _encode(draw: random.Random) -> Draft:
    name, text, _ = _code(draw)
    packed = base64.b64encode(text.encode()).decode()
    return Draft(
        wishes=[f"encode the file {path(name)} to base64 and give me the result"],
        facts=[given("file", path(name))],
        calls=[(BASE64, "encode_file_to_base64", {"file_path": path(name)})],
        report=f"It is {packed}",
        answers=[("the encoded text", (packed.rstrip("="),))],
        files={name: text},
    )


def _decode(draw: random.Random) -> Draft:
    name, text, _ = _code(draw)
    packed = base64.b64encode(text.encode()).decode()
    return Draft(
        wishes=[f"decode {packed} from base64 into the file {path(name)}"],
        facts=[given("text", packed), given("file", path(name))],
        calls=[(BASE64, "decode_base64_to_file", {"base64_content": packed, "file_path": path(name)})],
        report="The file is there.",
        probes=[
            Probe(
                text="The file has what was encoded.",
                call=(BASE64, "encode_file_to_base64", {"file_path": path(name)}),
                contains=(packed,),
            )
        ],
    )


def _maker(difficulty, make, *tools) -> Maker:
    return Maker(tools=tools, difficulty=difficulty, make=make)


MAKERS = (
    _maker("simple", _read, (FILES, _READ)),
    _maker("simple", _write, (FILES, "write_file"), (FILES, _READ)),
    _maker("moderate", _move, (FILES, _READ), (FILES, "move_file")),
    _maker("moderate", _edit, (FILES, _READ), (FILES, "edit_file")),
    _maker("complex", _gather, (FILES, "list_directory"), (FILES, _READ), (FILES, "write_file")),
    _maker("complex", _total, (FILES, _READ), (FILES, "write_file"), (CALCULATOR, "calculate")),
    _maker("simple", _cat, (SHELL, "shell_execute")),
    _maker("simple", _command, (COMMANDS, "run_command")),
    _maker("simple", _line, (EDITOR, "get_text_file_contents")),
    _maker("simple", _encode, (BASE64, "encode_file_to_base64")),
    _maker("simple", _decode, (BASE64, "decode_base64_to_file"), (BASE64, "encode_file_to_base64")),
)
