"""Exercises in several languages with their tests, as aider's polyglot benchmark asks: a first try, what the tests say of it, a second.

The folder is the owner's repository: LANGUAGE/exercises/practice/NAME with .docs, .meta/config.json, stubs and tests. Tests are the owner's whatever an answer
says of them, and run in a box without a network: JavaScript, whose tests need jest's packages, and Java, whose need gradle's, cannot run there.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi_jobs.chat.request import ChatRequest, Message
from abruzzi_jobs.evals.suites.mounted.edits import edited, edits_of, whole_files
from abruzzi_jobs.evals.suites.mounted.kinds import MountedSuite
from abruzzi_jobs.evals.suites.mounted.languages import LEAVE_OUT, leaves_out
from abruzzi_jobs.evals.suites.mounted.programs import tool_in_box
from abruzzi_jobs.evals.suites.suite import Ask, Helpers, Transcript
from abruzzi_jobs.rl.environments.evaluating import refuse_without_sandbox, write_files
from abruzzi_jobs.sandbox import Box, Limits, python_files, run, scratch_folder

_LIMITS = Limits(
    cpu_seconds=180, memory_bytes=2 << 30, reserved_bytes=64 << 30, file_bytes=256 << 20, processes=256, together_bytes=4 << 30, workspace_bytes=1 << 30,
    workspace_files=20_000,
)  # fmt: skip
_WALL_SECONDS = 180.0
"""The owner's."""
_LOG_LINES = 50
_FORMS = {
    "whole": "Answer with each file whole: its name on a line of its own and, below it, a block ``` with all of its text.",
    "diff": (
        "Answer with changes alone: the file's name on a line of its own and, below it, a block\n"
        "```\n<<<<<<< SEARCH\nlines as they stand in the file\n=======\nlines in their place\n>>>>>>> REPLACE\n```"
    ),
}
_ASKED = "{told}\n\n####\n\nUse the instructions to change these files, of which the names of functions and classes stay:\n\n{files}\n\n{form}"
_AGAIN = (
    "```\n{log}\n```\n\nThese are the errors of the tests, which are right and stay as they are. Mend {names}. {form}"
)


@dataclass(frozen=True)
class Language:
    tool: str
    command: str
    """For sh, in the exercise's folder; {tool} is the tool's path."""


LANGUAGES = {
    "cpp": Language(
        "cmake", "{tool} -S . -B build -DEXERCISM_RUN_ALL_TESTS=1 -G 'Unix Makefiles' && {tool} --build build"
    ),
    "go": Language("go", "{tool} test ./..."),
    "python": Language(
        "python3", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {tool} -m pytest -q --tb=short -p no:cacheprovider"
    ),
    "rust": Language("cargo", "{tool} test --offline -- --include-ignored"),
}
"""As the owner runs them."""


class Exercises(MountedSuite):
    """Options `edits`, the form of answers: `whole` or `diff`; `languages`, a list; absent: all that the folder has; `lacking`: `refuse`, or `leave-out` for those
    that cannot be run here, which are then named in the report. Score: solved by the second try. Parts:
    `first_try`; `well_formed`, whether every answer could be read in its form."""

    takes = ("edits", "languages", "lacking")

    def __init__(self, settings: SuiteSettings) -> None:
        super().__init__(settings)
        refuse_without_sandbox(self.name)
        form = str(settings.options.get("edits", "whole"))
        if form not in _FORMS:
            raise AbruzziError("bad_options", f"suite {self.name}: edits is not {form!r}.", hint="Give whole or diff.")
        self.form_of_edits = form
        there = sorted(folder.name for folder in self.place.iterdir() if (folder / "exercises/practice").is_dir())
        wanted = [str(name) for name in settings.options.get("languages", there)]
        lacks = {name: why for name in wanted if (why := _lacks(name))}
        if lacks and not leaves_out(self.name, settings):
            first = next(iter(lacks))
            raise AbruzziError(
                "no_tool",
                f"suite {self.name}: language {first!r} {lacks[first]}.",
                hint=f"Name the others in the suite's option languages, such as ['python', 'go'], or set lacking = {LEAVE_OUT!r}.",
            )
        self.languages = [name for name in wanted if name not in lacks]
        for name in self.languages:
            if name not in there:
                raise AbruzziError("bad_data", f"{self.place} has no exercises in {name}.")
        self.left_out = tuple(f"{name} ({why})" for name, why in lacks.items())

    def items(self) -> Iterator[Item]:
        for language in self.languages:
            for folder in sorted((self.place / language / "exercises/practice").iterdir()):
                if (folder / ".meta/config.json").is_file():
                    yield self._item(language, folder)

    def _item(self, language: str, folder: Path) -> Item:
        try:
            listed = json.loads((folder / ".meta/config.json").read_text(encoding="utf-8"))["files"]
            docs = [folder / ".docs" / f"{name}.md" for name in ("introduction", "instructions", "instructions.append")]
            told = "\n\n".join(doc.read_text(encoding="utf-8").strip() for doc in docs if doc.is_file())
            files = _texts(folder)
            solution = [str(path) for path in listed["solution"] if str(path) in files]
            examples = [_text(folder / str(path)) for path in listed.get("example", ())]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AbruzziError("bad_data", f"{folder}: the exercise is malformed ({error}).") from error
        if not solution or not told:
            raise AbruzziError("bad_data", f"{folder}: the exercise has no stub or no instructions.")
        gold = dict(zip(solution, examples, strict=False)) if len(examples) >= len(solution) else None
        meta = {"files": files, "solution": solution, "language": language}
        return Item(id=f"{language}/{folder.name}", prompt=told, gold=gold, subtask=language, meta=meta)

    def messages(self, item: Item) -> list[Message]:
        files = {path: item.meta["files"][path] for path in item.meta["solution"]}
        asked = _ASKED.format(told=item.prompt, files=_written(files), form=_FORMS[self.form_of_edits])
        return [{"role": "user", "content": asked}]

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        messages = self.messages(item)
        tries: list[bool] = []
        files, formed, truncated, text = {}, True, False, ""
        while len(tries) < 2 and True not in tries:
            response = await ask(ChatRequest(messages=tuple(messages)))
            messages.append(response.message())
            text, truncated = response.text, truncated or response.finish_reason == "length"
            files, fault = self._after(item, files, text)
            formed &= not fault
            passed, log = await asyncio.to_thread(_tested, item, files)
            tries.append(passed)
            if not passed and len(tries) < 2:
                again = _AGAIN.format(
                    log=f"{fault}\n{log}".strip(),
                    names=", ".join(item.meta["solution"]),
                    form=_FORMS[self.form_of_edits],
                )
                messages.append({"role": "user", "content": again})
        state = {"tries": tries, "well_formed": formed}
        return Transcript(messages=tuple(messages), answer=text, state=state, truncated=truncated)

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        state, log = transcript.state, ""
        if state is None:
            files, fault = self._after(item, {}, transcript.answer)
            passed, log = await asyncio.to_thread(_tested, item, files)
            state = {"tries": [passed], "well_formed": not fault}
        solved = any(state["tries"])
        parts = {"first_try": float(state["tries"][0]), "well_formed": float(state["well_formed"])}
        return Verdict(score=float(solved), parts=parts, reason="" if solved else (log[-300:] or "its tests fail"))

    def _after(self, item: Item, files: Mapping[str, str], answer: str) -> tuple[dict[str, str], str]:
        """(the solution's files as the answer leaves them, why it could not be read)."""
        solution = item.meta["solution"]
        if self.form_of_edits == "whole":
            found = whole_files(answer, solution)
            return {**files, **found}, "" if found else "The answer has no file."
        try:
            edits = [edit for edit in edits_of(answer) if edit.path in solution]
            found = edited(edits, lambda path: files.get(path, item.meta["files"].get(path)))
        except ValueError as error:
            return dict(files), f"The answer does not fit: {error}."
        return {**files, **found}, "" if found else "The answer changes no file."

    def gold_answer(self, item: Item) -> str | None:
        if item.gold is None:
            return None
        if self.form_of_edits == "whole":
            return _written(item.gold)
        stubs = item.meta["files"]
        return "\n\n".join(
            f"{path}\n```\n<<<<<<< SEARCH\n{stubs[path]}=======\n{text}>>>>>>> REPLACE\n```"
            for path, text in item.gold.items()
        )

    def perturbed_answer(self, item: Item) -> str:
        """The stubs as they are."""
        return _written({path: item.meta["files"][path] for path in item.meta["solution"]})


def _lacks(name: str) -> str:
    """What running it would need, in words; empty where it can be run."""
    language = LANGUAGES.get(name)
    if language is None:
        return f"cannot be run in a box without a network; there are {', '.join(LANGUAGES)}"
    is_here = tool_in_box(language.tool) is not None
    return "" if is_here else f"needs {language.tool} on the PATH below /usr or /bin, where boxes see it"


def _tested(item: Item, files: Mapping[str, str]) -> tuple[bool, str]:
    """(whether the tests pass, what they say). Raises AbruzziError `no_sandbox`, `sandbox_failed`."""
    language = LANGUAGES[item.meta["language"]]
    is_python = item.meta["language"] == "python"
    tool = sys.executable if is_python else tool_in_box(language.tool)
    with scratch_folder("abruzzi-exercise-") as folder:
        write_files(folder, {**item.meta["files"], **files})
        environment = {
            "GOCACHE": "/workspace/.cache",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        box = Box(
            workspace=folder, readable=python_files() if is_python else (), limits=_LIMITS, environment=environment
        )
        done = run(box, ["sh", "-c", language.command.format(tool=tool)], wall_seconds=_WALL_SECONDS)
    said = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").replace(str(Path(sys.prefix)), "python")
    if "No module named pytest" in said:
        raise AbruzziError("missing_package", "The exercises' tests need pytest, which is not installed here.")
    if done.ending != "exited":
        said += f"\n({done.ending.replace('_', ' ')})"
    return done.ok, "\n".join(said.strip().splitlines()[-_LOG_LINES:])


def _written(files: Mapping[str, str]) -> str:
    return "\n\n".join(
        f"{path}\n```\n{text if text.endswith(chr(10)) else text + chr(10)}```" for path, text in files.items()
    )


def _texts(folder: Path) -> dict[str, str]:
    """Path → text, of what is neither documentation nor the owner's."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not path.is_symlink() and inside.parts[0] not in (".docs", ".meta"):
            found[str(inside)] = _text(path)
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
