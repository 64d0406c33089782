"""Programs in other languages than Python, with their owner's tests behind them: right where the whole ends well in a box."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.evals.suites.mounted.programs import BoxedSuite, tool_in_box
from abruzzi_jobs.sandbox import Box, Limits, run, scratch_folder

_LIMITS = Limits(
    cpu_seconds=120, memory_bytes=2 << 30, reserved_bytes=64 << 30, file_bytes=256 << 20, processes=256, together_bytes=4 << 30, workspace_bytes=1 << 30,
    workspace_files=20_000,
)  # fmt: skip
"""A compiler is among what runs; what ends a loop without end is the wall time."""
_WALL_SECONDS = 120.0
_BLOCK = re.compile(r"```[\w+#-]*[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Language:
    title: str
    file: str
    tool: str
    command: str
    """For sh, in the workspace; {tool} is the tool's path."""


LANGUAGES = {
    "cpp": Language("C++", "program.cpp", "g++", "{tool} -std=c++17 program.cpp -o program && ./program"),
    "go": Language("Go", "program_test.go", "go", "{tool} test program_test.go"),
    "js": Language("JavaScript", "program.js", "node", "{tool} program.js"),
    "lua": Language("Lua", "program.lua", "lua", "{tool} program.lua"),
    "php": Language("PHP", "program.php", "php", "{tool} program.php"),
    "pl": Language("Perl", "program.pl", "perl", "{tool} program.pl"),
    "py": Language("Python", "program.py", "python3", "{tool} program.py"),
    "rb": Language("Ruby", "program.rb", "ruby", "{tool} program.rb"),
    "rs": Language("Rust", "program.rs", "rustc", "{tool} program.rs -o program && ./program"),
    "sh": Language("Bash", "program.sh", "bash", "{tool} program.sh"),
}
"""By MultiPL-E's names, run as its owners run them. The tools are those of the machine that scores."""


class Translated(BoxedSuite):
    """Option `languages`: a list of those that are asked, such as ["cpp", "js"]; absent: all in the file."""

    form = "Complete this {language} program. Answer with the whole of it in one block, its beginning unchanged, without a main program or tests.\n\n```\n{question}\n```"
    takes = ("languages",)

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        for name in self._wanted or ():
            if name not in LANGUAGES:
                known = ", ".join(LANGUAGES)
                raise AbruzziError(
                    "bad_options", f"suite {self.name}: no language {name!r} can be run.", hint=f"There are {known}."
                )

    @property
    def _wanted(self) -> list[str] | None:
        given = self.settings.options.get("languages")
        return None if given is None else [str(name) for name in given]

    def _items(self, place: Path) -> Iterator[Item]:
        for item in super()._items(place):  # a problem has the same name in each language
            yield item.model_copy(update={"id": f"{item.meta['language']}/{item.id}"})

    def takes_row(self, row: Mapping[str, Any]) -> bool:
        return self._wanted is None or row[self.mounted.subtask] in self._wanted

    def read(self, row: Mapping[str, Any]) -> tuple[str, Any, dict[str, Any]]:
        name = str(row[self.mounted.subtask])
        language = LANGUAGES.get(name)
        if language is None or tool_in_box(language.tool) is None:
            lacks = (
                f"needs {language.tool}, which is not on the PATH below /usr or /bin, where boxes see it"
                if language
                else "cannot be run"
            )
            raise AbruzziError(
                "no_tool",
                f"{self.mounted.title}: language {name!r} {lacks}.",
                hint="Install it, or name the others in the suite's option languages.",
            )
        prompt, gold, meta = super().read(row)
        return prompt, gold, {**meta, "language": name, "stops": list(row.get(self.mounted.params) or ())}

    def asked(self, item: Item) -> str:
        return super().asked(item).replace("{language}", LANGUAGES[item.meta["language"]].title)

    def judge(self, item: Item, answer: str) -> Verdict:
        language = LANGUAGES[item.meta["language"]]
        tool = tool_in_box(language.tool)
        assert tool is not None
        with scratch_folder("abruzzi-language-") as folder:
            program = f"{_whole(item, answer)}\n{item.gold}"
            (folder / language.file).write_text(program, encoding="utf-8", errors="replace")
            box = Box(
                workspace=folder, limits=_LIMITS, environment={"GOCACHE": "/workspace/.cache", "GOTOOLCHAIN": "local"}
            )
            done = run(box, ["sh", "-c", language.command.format(tool=tool)], wall_seconds=_WALL_SECONDS)
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        why = said[-300:] if done.ending == "exited" else done.ending.replace("_", " ")
        return Verdict(score=float(done.ok), reason="" if done.ok else why or f"exit code {done.exit_code}")

    def gold_answer(self, item: Item) -> None:
        """Nobody says: the owner publishes tests and no solutions."""

    def perturbed_answer(self, item: Item) -> str:
        """A program that is none."""
        return f"```\n{item.prompt}\n))) 73461\n```"


def _whole(item: Item, answer: str) -> str:
    """The program as far as the tests: the last block that has the header which the prompt ends with, behind what the prompt has before it; else the prompt,
    and the answer up to where the owner stops a completion."""
    header = item.prompt.rstrip().rpartition("\n")[2].strip()
    before = item.prompt[: item.prompt.rindex(header)] if header else ""
    blocks = _BLOCK.findall(answer)
    for block in (*reversed(blocks), answer):
        if header and header in block:
            first = next((line for line in item.prompt.splitlines() if line.strip()), "")
            # One that begins as the prompt does is the whole; another lacks its imports.
            whole = block if block.lstrip().startswith(first.strip()) else before + block[block.index(header) :]
            # Where a completion stops before its last brace, the tests begin with it.
            return whole.rstrip().removesuffix("}") if str(item.gold).lstrip().startswith("}") else whole
    body = blocks[-1] if blocks else answer
    cuts = [at for stop in item.meta["stops"] if (at := body.find(stop)) >= 0]
    return item.prompt + body[: min(cuts, default=len(body))]
