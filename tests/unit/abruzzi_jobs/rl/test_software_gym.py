from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from planted_gyms import played

from abruzzi_jobs.rl.environments import gym
from abruzzi_jobs.rl.environments.answers import as_assistant
from abruzzi_jobs.rl.environments.evaluating import evaluate
from abruzzi_jobs.rl.environments.gyms.software.repositories import bugs, named, repository
from abruzzi_jobs.rl.environments.gyms.software.workspace import Workspace
from abruzzi_jobs.sft.conversation import call_id, compact

SOFTWARE = gym("software")
DONE = as_assistant("Done.")


def _call(tool: str, number: int = 0, **arguments: str) -> dict:
    function = {"name": tool, "arguments": compact(arguments)}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": call_id(tool, number), "type": "function", "function": function}],
    }


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: f"{bug.project}-{bug.issue.splitlines()[0][:30]}")
def test_tests_that_failed_pass_once_it_is_mended_and_the_others_always_did(bug) -> None:
    tests, preamble = [*bug.failing, *bug.passing], f"from {bug.project} import *"
    with_bug = evaluate(repository(bug, bug.project), preamble, tests).values
    without = evaluate(repository(bug, bug.project, mended=True), preamble, tests).values
    assert None not in without
    assert [a == b for a, b in zip(with_bug, without, strict=True)] == [False] * len(bug.failing) + [True] * len(
        bug.passing
    )


async def test_an_issue_is_worth_one_mended_and_nothing_otherwise() -> None:
    task = SOFTWARE.task(0, 0)
    said = [m for m in SOFTWARE.solution(task) if m["role"] == "assistant"]
    mended = await played(SOFTWARE, task, said)
    assert (mended.reward, mended.components["failing_now_pass"]) == (1.0, 1.0), mended
    untouched = await played(SOFTWARE, task, [_call("shell", command="git log --oneline && python3 -m unittest"), DONE])
    assert (untouched.reward, untouched.components["passing_still_pass"]) == (0.0, 1.0), untouched
    emptied = await played(SOFTWARE, task, [_call("shell", command="rm -rf * .git"), DONE])
    assert emptied.reward == 0.0


async def test_what_the_policy_sees_is_a_repository_with_its_history() -> None:
    task = SOFTWARE.task(1, 0)
    session = SOFTWARE.session()
    begin = await session.reset(task, 0)
    assert [tool["name"] for tool in begin.tools] == ["shell", "edit"]
    told = []
    for message in (
        _call("shell", command="git log --format=%s && git status --short && ls"),
        _call("shell", command="python3 -m unittest 2>&1 | tail -1"),
        _call("edit", path="new.py", old="", new="x = 1\n"),
        _call("edit", path="new.py", old="x", new="y"),
        _call("edit", path="new.py", old="z", new="y"),
        _call("edit", path="nowhere.py", old="z", new="y"),
        _call("shell", command="git status --short"),
        _call("shell", command="exit 3"),
        _call("fly"),
        _call("shell", command2="ls"),
    ):
        told.append((await session.step(message)).observation.messages[0]["content"])
    assert (await session.state())["files"]["new.py"] == "y = 1\n"
    await session.close()
    package = task.data["package"]
    assert told[0].split() == ["Import", "README.md", package, "tests"]
    assert told[1:4] == ["OK\n", "new.py is edited.", "new.py is edited."]
    assert told[4] == "Not edited: `old` stands 0 times in new.py, not once."
    assert "No such file" in told[5]
    assert told[6:] == [
        "?? new.py\n",
        "(exit code 3)",
        "There is no tool 'fly'; there are shell and edit.",
        'shell needs ["command"], each a text.',
    ]


def test_links_lead_nowhere_and_nothing_stays(tmp_path: Path) -> None:
    secret = tmp_path / "secret.py"
    secret.write_text("secret")
    workspace = Workspace({"a.py": "a = 1\n"})
    folder = workspace._folder
    workspace.shell(f"ln -s {secret} link.py; ln -s {tmp_path} out; echo 'b = 2' > b.py")
    assert "Not edited" in workspace.edit("link.py", "secret", "taken")
    assert "Not edited" in workspace.edit(f"{tmp_path}/new.py", "", "taken")
    assert workspace.files() == {"a.py": "a = 1\n", "b.py": "b = 2\n"}
    assert secret.read_text() == "secret"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.py"]
    workspace.close()
    assert not folder.exists()
    mounts = subprocess.run(["cat", "/proc/mounts"], capture_output=True, text=True, check=True).stdout
    assert str(folder) not in mounts


def test_bugs_are_held_out_whatever_the_package_is_called() -> None:
    train = {SOFTWARE.task(0, index).data["bug"] for index in range(40)}
    held_out = {SOFTWARE.task(0, index, split="held_out").data["bug"] for index in range(40)}
    assert train
    assert held_out
    assert not train & held_out
    bug = bugs()[0]
    assert named(bug.file, bug, "pika") in repository(bug, "pika")
