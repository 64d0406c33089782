"""Redteam stages in recipes: the report's grid, who may word attacks, and each mistake named with its place."""

from __future__ import annotations

import pytest

from abruzzi.contracts.endpoint import OpenAiEndpoint
from abruzzi.contracts.recipe import RedteamStage
from abruzzi.contracts.redteam import SUB_PLUGINS, Plugin, RedteamConfig, Strategy, leaves_deployment, paper_cells
from abruzzi.contracts.toml import load_recipe, parse_recipe

GOOD = """\
version = 1
name = "safety"
[endpoint.model]
kind = "openai"
base_url = "https://llm.example.org/v1"
model = "m"
[endpoint.inside]
kind = "openai"
base_url = "http://vllm.models.svc:8000/v1"
model = "m"

[[stage]]
id = "redteam"
kind = "redteam"
[stage.redteam]
plugins = ["privacy", "criminal/drugs"]
strategies = ["basic", "crescendo"]
[stage.roles]
target = "model"
attacker = "inside"
judge = "inside"
"""

BAD = {
    "a plugin": ('"criminal/drugs"', '"criminal/drug"', 16, "stage.redteam.redteam.plugins", "drugs"),
    "a plugin twice": ('"criminal/drugs"', '"privacy"', 16, "stage.redteam.redteam.plugins", "twice"),
    "a strategy": ('"crescendo"', '"crecendo"', 17, "stage.redteam.redteam.strategies.1", "crescendo"),
    "no target": ('target = "model"\n', "", 18, "stage.redteam.roles.target", "nobody is attacked"),
    "no attacker": ('attacker = "inside"\n', "", 18, "stage.redteam.roles.attacker", "attacks of crescendo"),
    "an attacker that is nowhere": (
        'attacker = "inside"',
        'attacker = "cloud"',
        20,
        "stage.redteam.roles.attacker.endpoint",
        "no endpoint is called 'cloud'",
    ),
    "an attacker elsewhere": (
        'attacker = "inside"',
        'attacker = "model"',
        20,
        "stage.redteam.roles.attacker",
        "at llm.example.org, and attackers' words go to the target and nowhere else outside",
    ),
    "a judge elsewhere": (
        'judge = "inside"',
        'judge = "model"',
        21,
        "stage.redteam.roles.judge",
        "at llm.example.org, and attackers' words go to the target and nowhere else outside",
    ),
}


def test_the_grid_is_the_reports() -> None:
    assert {plugin.value: len(names) for plugin, names in SUB_PLUGINS.items()} == {
        "harmful": 9,
        "criminal": 11,
        "misinformation": 11,
        "privacy": 5,
        "security": 11,
    }
    assert len(Strategy) == 5
    config = RedteamConfig()
    assert (len(config.sub_plugins()), config.prompts) == (47, 3)
    assert paper_cells(Plugin.HARMFUL, Strategy.CRESCENDO)["K2-Instruct"] == 64.71
    means = {p: sum(paper_cells(p, s)["K2-Instruct"] for s in Strategy) / 5 for p in Plugin}
    derived = [89.61, 77.27, 88.77, 92.33, 72.15]
    assert [round(mean, 2) for mean in means.values()] == derived, "means that the reference derives of the same cells"


def test_single_sub_plugins_and_whole_plugins_are_chosen() -> None:
    stage = load_recipe(GOOD).stage[0]
    assert isinstance(stage, RedteamStage)
    assert [f"{plugin}/{name}" for plugin, name in stage.redteam.sub_plugins()] == [
        "criminal/drugs",
        *(f"privacy/{name}" for name in SUB_PLUGINS[Plugin.PRIVACY]),
    ]


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_is_named_with_its_place(case: str) -> None:
    there, instead, line, key, words = BAD[case]
    assert there in GOOD
    recipe, found = parse_recipe(GOOD.replace(there, instead, 1))
    assert recipe is None
    told = [str(problem) for problem in found]
    assert words in told[0], told
    assert (found[0].line, found[0].key) == (line, key), told


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://llm.example.org/v1", "llm.example.org"),
        ("https://8.8.8.8/v1", "8.8.8.8"),
        ("http://10.1.2.3:80/v1", None),
        ("http://127.0.0.1:9/v1", None),
        ("http://[::1]:9/v1", None),
        ("http://vllm/v1", None),
        ("http://134744072/v1", "134744072"),
        ("http://0x8080808/v1", "0x8080808"),
        ("http://[::ffff:8.8.8.8]/v1", "::ffff:8.8.8.8"),
        ("http://[::ffff:10.1.2.3]/v1", None),
        ("http://vllm.models.svc.cluster.local/v1", None),
        ("https://gpu.our.example/v1", None),
        ("https://vllm.svc.example.org/v1", "vllm.svc.example.org"),
    ],
)
def test_what_is_inside_the_deployment(url: str, host: str | None) -> None:
    endpoint = OpenAiEndpoint(kind="openai", base_url=url, model="m")
    assert leaves_deployment(endpoint, ("gpu.our.example",)) == host


def test_single_turns_may_be_judged_anywhere_and_named_hosts_belong_to_the_deployment() -> None:
    outside = GOOD.replace('attacker = "inside"\njudge = "inside"', 'judge = "model"')
    recipe, _ = parse_recipe(outside.replace('"basic", "crescendo"', '"basic", "base64"'))
    assert recipe is not None
    named = GOOD.replace('attacker = "inside"', 'attacker = "model"').replace(
        "[stage.roles]", 'deployment_hosts = ["llm.example.org"]\n[stage.roles]'
    )
    recipe, found = parse_recipe(named)
    assert recipe is not None, [str(problem) for problem in found]
