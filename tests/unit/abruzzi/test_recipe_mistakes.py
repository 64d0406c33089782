"""Bad recipes: one error each, with file, line, key and remedy."""

from __future__ import annotations

import string
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abruzzi.contracts.recipe import PretrainStage
from abruzzi.contracts.sources import SHIPPED_SOURCES
from abruzzi.contracts.toml import RecipeInvalid, _override, load_recipe, parse_recipe, with_overrides
from abruzzi_jobs.data.sources import SHIPPED

RECIPES = Path(__file__).parents[3] / "recipes"

GOOD = """\
version = 1
name = "small"

[[stage]]
id = "corpus"
kind = "corpus"
[stage.data]
sources = ["python-stdlib"]

[[stage]]
id = "tokenize"
kind = "tokenize"
needs = ["corpus"]

[[stage]]
id = "pretrain"
kind = "pretrain"
needs = ["tokenize"]
[stage.model]
preset = "tiny"
[stage.schedule]
tokens = "4M"
[stage.batch]
sequences = 32
sequence_length = 256

[[stage]]
id = "evaluate"
kind = "evaluate"
needs = ["pretrain", "tokenize", "corpus"]
"""

# (what is replaced, by what, line, key, part of the message, part of the remedy)
BAD = {
    "unknown key": (
        'preset = "tiny"',
        'preset = "tiny"\nhidden_sise = 64',
        21,
        "stage.pretrain.model.hidden_sise",
        "unknown key",
        "'hidden_size'",
    ),
    "unknown key of curation": (
        'sources = ["python-stdlib"]',
        'sources = ["python-stdlib"]\n[stage.data.quality]\nmin_word = 5',
        10,
        "stage.corpus.data.quality.min_word",
        "unknown key",
        "'min_words'",
    ),
    "impossible limit of curation": (
        'sources = ["python-stdlib"]',
        'sources = ["python-stdlib"]\nnear_dedup = { threshold = 1.5 }',
        9,
        "stage.corpus.data.near_dedup.threshold",
        "less than 1",
        "Correct the value",
    ),
    "wrong type": (
        "sequences = 32",
        'sequences = "many"',
        24,
        "stage.pretrain.batch.sequences",
        "valid integer",
        "Correct the value",
    ),
    "missing table": (
        '[stage.data]\nsources = ["python-stdlib"]\n',
        "",
        4,
        "stage.corpus.data",
        "'data' is missing",
        "Add data",
    ),
    "missing input": (
        'needs = ["corpus"]\n',
        "",
        10,
        "stage.tokenize.needs",
        "no corpus to work on",
        "Add 'corpus' to its needs",
    ),
    "cycle": ('needs = ["corpus"]', 'needs = ["evaluate"]', 13, "stage.tokenize.needs", "circle", "Remove one"),
    "impossible size": (
        'preset = "tiny"',
        'preset = "tiny"\nnum_experts_per_token = 99',
        21,
        "stage.pretrain.model.num_experts_per_token",
        "num_experts is 16",
        "Change one",
    ),
    "unknown kind": (
        'kind = "tokenize"',
        'kind = "tokenise"',
        12,
        "stage.tokenize.kind",
        "no stage kind is called 'tokenise'",
        "'tokenize'",
    ),
    "unknown preset": ('preset = "tiny"', 'preset = "tinny"', 20, "stage.pretrain.model.preset", "no preset", "'tiny'"),
    "unknown need": (
        'needs = ["tokenize"]',
        'needs = ["tokenise"]',
        18,
        "stage.pretrain.needs",
        "which is no stage",
        "'tokenize'",
    ),
    "fine-tuning on nothing": (
        'id = "evaluate"\nkind = "evaluate"\n',
        'id = "evaluate"\nkind = "sft"\nbatch = { sequences = 8, sequence_length = 256 }\n',
        31,
        "stage.evaluate.needs",
        "no conversations to learn from: none of its needs makes conversations or trajectories",
        'data.sources = ["./chats/*.jsonl"]',
    ),
    "conversations that are no files": (
        'id = "evaluate"\nkind = "evaluate"\n',
        'id = "evaluate"\nkind = "sft"\nbatch = { sequences = 8, sequence_length = 256 }\ndata = { sources = ["chats"] }\n',
        31,
        "stage.evaluate.data.sources",
        "'chats' is no path of files",
        "given by path",
    ),
    "conversations longer than the model": (
        'id = "evaluate"\nkind = "evaluate"\n',
        'id = "evaluate"\nkind = "sft"\nbatch = { sequences = 8, sequence_length = 1024 }\ndata = { sources = ["./c.jsonl"] }\n',
        30,
        "stage.evaluate.batch.sequence_length",
        "1024 is longer than the 512 positions of the model of stage 'pretrain'",
        "512 at most",
    ),
    "not TOML": ('name = "small"', "name = small", 2, "name", "not TOML", "quotes"),
    "vocabulary too large": (
        'needs = ["corpus"]',
        'needs = ["corpus"]\n[stage.tokenizer]\nvocab_size = 50000',
        21,
        "stage.pretrain.model.vocab_size",
        "50000",
        "model.vocab_size = 50000",
    ),
    "sequence longer than the model": (
        "sequence_length = 256",
        'sequence_length = "8k"',
        25,
        "stage.pretrain.batch.sequence_length",
        "longer than model.max_position",
        "",
    ),
    "annealing longer than the model": (
        '[stage.schedule]\ntokens = "4M"',
        '[stage.schedule]\ntokens = "4M"\nanneal = [\n  { tokens = "1M" },\n  { tokens = "1M", sequence_length = 1024 },\n]',
        25,
        "stage.pretrain.schedule.anneal.1.sequence_length",
        "1024 is longer than model.max_position 512",
        "",
    ),
    "virtual stages without a pipeline": (
        "[stage.schedule]",
        "[stage.parallel]\nvpp = 2\n[stage.schedule]",
        22,
        "stage.pretrain.parallel.vpp",
        "need a pipeline",
        "",
    ),
    "more chunks than layers": (
        "[stage.schedule]",
        "[stage.parallel]\npp = 2\nvpp = 4\n[stage.resources]\nranks = 2\n[stage.schedule]",
        23,
        "stage.pretrain.parallel.vpp",
        "8 stages for 6 layers: take vpp 3 at most, or a smaller pp",
        "",
    ),
    "single brackets": (
        '[[stage]]\nid = "evaluate"',
        '[stage2]\nid = "evaluate"',
        27,
        "stage2",
        "unknown key",
        "'stage'",
    ),
    "duplicate id": ('id = "tokenize"', 'id = "corpus"', 11, "stage.corpus.id", "used twice", "an id of its own"),
    "wrong output": (
        'needs = ["pretrain", "tokenize", "corpus"]',
        'needs = ["pretrain", "tokenize", "corpus"]\ninputs = { checkpoint = "pretrain.chekpoint" }',
        31,
        "stage.evaluate.inputs.checkpoint",
        "no output 'chekpoint'",
        "'checkpoint'",
    ),
}


def test_with_yarn_a_phase_may_be_longer_than_the_model_was_made_for() -> None:
    longer = GOOD.replace(
        'preset = "tiny"\n[stage.schedule]\ntokens = "4M"',
        'preset = "tiny"\nyarn = { factor = 4.0, original_max_position = 512 }\n[stage.schedule]\ntokens = "4M"\nanneal = [{ tokens = "1M", sequence_length = 1024 }]',
    )
    assert longer != GOOD
    load_recipe(longer)


def test_the_good_recipe_is_good() -> None:
    recipe = load_recipe(GOOD)
    assert [s.id for s in recipe.stage] == ["corpus", "tokenize", "pretrain", "evaluate"]


@pytest.mark.parametrize("name", BAD)
def test_each_mistake_names_file_line_key_and_remedy(name: str) -> None:
    old, new, line, key, message, remedy = BAD[name]
    assert GOOD.count(old) == 1
    recipe, found = parse_recipe(GOOD.replace(old, new), file="my.toml")
    assert recipe is None
    assert [m.key for m in found] == [key], [str(m) for m in found]
    (first,) = found
    assert (first.file, first.line) == ("my.toml", line)
    assert message in first.message
    assert remedy in first.hint
    assert str(first).startswith(f"my.toml:{line}:")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model.num_layers", '"6"', "valid integer"),
        ("model.num_layers", "true", "valid integer"),
        ("model.num_layers", "6.0", "valid integer"),
        ("model.tie_embeddings", '"yes"', "valid boolean"),
        ("model.rope_theta", "inf", "finite number"),
        ("batch.sequences", '"32"', "valid integer"),
        ("batch.micro_sequences", "5", "does not divide the 32 sequences"),
        ("schedule.tokens", "true", "valid integer"),
        ("schedule.tokens", "5", "less than one step, which takes 8192"),
        ("checkpoint.every", "false", "valid number"),
    ],
)
def test_nothing_is_converted_silently_and_no_impossible_size_passes(key: str, value: str, says: str) -> None:
    recipe, (mistake,) = parse_recipe(GOOD, {f"stage.pretrain.{key}": value})
    assert recipe is None
    assert (mistake.file, mistake.key) == ("--set", f"stage.pretrain.{key}")
    assert says in mistake.message


def test_a_source_that_is_neither_shipped_nor_a_path_is_a_mistake() -> None:
    assert set(SHIPPED_SOURCES) == set(SHIPPED)
    _, (mistake,) = parse_recipe(GOOD.replace('"python-stdlib"', '"python-stdlb"'))
    assert (mistake.line, mistake.key) == (8, "stage.corpus.data.sources")
    assert "'python-stdlib'" in mistake.hint
    assert load_recipe(GOOD, {"stage.corpus.data.sources": '["./a.txt", "s3://b/c", "texts/*.jsonl"]'})


def test_the_files_name_is_said_as_it_was_given() -> None:
    _, (mistake,) = parse_recipe(GOOD.replace("sequences = 32", "sequences = 0"), file="../exp/my.toml")
    assert str(mistake).startswith("../exp/my.toml:24:1: ")


def test_only_a_stage_that_can_takes_a_framework() -> None:
    on_ray = {f"stage.{key}.resources.framework": "ray" for key in ("corpus", "tokenize")}
    recipe, found = parse_recipe(GOOD, on_ray)
    assert (recipe is not None, found) == (True, [])
    assert parse_recipe(GOOD, {"stage.corpus.resources.framework": "indexed-job"})[1] == []
    for key, value in (("pretrain", "ray"), ("evaluate", "ray"), ("tokenize", "dask"), ("tokenize", "indexed-job")):
        recipe, found = parse_recipe(GOOD, {f"stage.{key}.resources.framework": value})
        assert (recipe, found[0].key) == (None, f"stage.{key}.resources.framework")


def test_the_items_of_suites_are_shared_out_and_held_out_text_is_not() -> None:
    indexed = {"stage.evaluate.resources.framework": "indexed-job"}
    _, (mistake,) = parse_recipe(GOOD, indexed)
    assert "only the items of suites are shared out" in mistake.message
    asking = {
        "stage.evaluate.suites.demo.samples": 1,
        "stage.evaluate.endpoint.own.kind": "standin",
        "stage.evaluate.roles.target": "own",
    }
    assert parse_recipe(GOOD, indexed | asking)[1] == []


def test_all_mistakes_come_at_once() -> None:
    text = GOOD.replace("sequences = 32", 'sequences = "many"').replace(
        'preset = "tiny"', 'preset = "tiny"\nhidden_sise = 3'
    )
    with pytest.raises(RecipeInvalid) as caught:
        load_recipe(text)
    assert {m.key for m in caught.value.mistakes} == {
        "stage.pretrain.model.hidden_sise",
        "stage.pretrain.batch.sequences",
    }


def test_set_overrides_one_value_and_is_validated_like_the_file() -> None:
    recipe = load_recipe(GOOD, {"stage.pretrain.optimizer.peak_lr": "1e-3", "name": "other"})
    stage = recipe.stage_by_id("pretrain")
    assert isinstance(stage, PretrainStage)
    assert stage.optimizer.peak_lr == 1e-3
    assert recipe.name == "other"
    _, found = parse_recipe(GOOD, {"stage.pretrain.optimizer.peak_lrr": "1"})
    assert "'peak_lr'" in found[0].hint
    _, found = parse_recipe(GOOD, {"stage.pretran.seed": "1"})
    assert found[0].file == "--set"
    assert "'pretrain'" in found[0].hint


@pytest.mark.parametrize(
    ("stages", "found"),
    [
        ('[[stage]]\nid = "x"\nkind = "corpus"\n[stage.data]\nsources = ["sympy"]\nsize = 1\n', ["unknown key 'size'"]),
        ('[stage]\nid = "x"\n', ["stages are an array of tables"]),
        ("stage = []\n", ["there is no stage"]),
        ("", ["'stage' is missing"]),
    ],
)  # fmt: skip
def test_the_only_stage_is_blamed_for_what_is_wrong_and_for_nothing_else(stages: str, found: list[str]) -> None:
    _, mistakes = parse_recipe(f'version = 1\nname = "one"\n{stages}')
    assert [mistake.message for mistake in mistakes] == found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.text(alphabet=string.printable, max_size=8), st.integers(0, 12))
def test_no_edit_of_a_recipe_can_crash_the_reader(at: int, inserted: str, removed: int) -> None:
    recipe, found = parse_recipe(GOOD[:at] + inserted + GOOD[at + removed :])
    assert (recipe is None) == bool(found)
    assert all(m.line >= 1 and m.message and m.hint for m in found)


VALUES = st.one_of(
    st.integers(-(10**12), 10**12).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.booleans().map(lambda b: str(b).lower()),
    st.text(max_size=20),
    st.lists(st.integers(0, 9), max_size=3).map(str),
    st.just('{ a = 1, b = "x" }'),
)
KEYS = st.sampled_from(
    [
        "name",
        "stage.corpus.data.max_bytes",
        "stage.pretrain.seed",
        "stage.pretrain.optimizer.peak_lr",
        "stage.pretrain.retry.max_attempts",
        "stage.evaluate.gate",
        "stage.tokenize.resources.ranks",
        "stage.pretrain.new.table.key",
    ]
)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
def test_overrides_written_into_a_recipe_are_what_they_were_and_change_nothing_else(overrides: dict[str, str]) -> None:
    text = (RECIPES / "tiny.toml").read_text()
    expected = tomllib.loads(text)
    for key, value in overrides.items():
        _override(expected, key, value)
    written = with_overrides(text, overrides)
    assert tomllib.loads(written) == expected
    assert {line for line in text.splitlines() if line.startswith("#")} <= set(written.splitlines())
