"""The enforcer: whatever a model would say, its calls follow the template, name a declared tool and validate; and what is recorded is the policy's own log-probability."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rl_groups import group_of, member, read
from tuning_lab import small_tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.objective import ObjectiveConfig
from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.distributed import Ranks
from abruzzi_jobs.models import KimiK2, ModelConfig
from abruzzi_jobs.optim import OptimizerConfig, build_optimizer
from abruzzi_jobs.rl.engine.enforcer import Enforcer
from abruzzi_jobs.rl.engine.protocol import Constraint, Request
from abruzzi_jobs.rl.engine.torch_engine import TorchEngine
from abruzzi_jobs.rl.learner.learner import Learner
from abruzzi_jobs.sft.markers import marker_sets, with_markers
from abruzzi_jobs.sft.template import ChatTemplate
from abruzzi_jobs.train.divergence import DivergenceWatch

ROOM = 20
"""Tokens that the model has and the tokenizer does not."""


class Untrained:
    def __init__(self, folder: Path) -> None:
        markers = marker_sets()["shipped"]
        self.template = ChatTemplate(with_markers(small_tokenizer(folder), markers), markers)
        tokenizer = self.template.tokenizer
        self.model = KimiK2(
            ModelConfig(
                vocab_size=tokenizer.get_vocab_size() + ROOM, hidden_size=32, num_layers=1, num_heads=2, q_lora_rank=16, kv_lora_rank=16,
                qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4, intermediate_size=16, moe_intermediate_size=8, num_experts=2,
                num_experts_per_token=1, max_position=1024,
            ),
            seed=1,
        )  # fmt: skip
        self.engine = TorchEngine(copy.deepcopy(self.model))
        self.enforcer = Enforcer(
            tokenizer,
            self.template.markers,
            vocab_size=self.model.config.vocab_size,
            end_of_text=self.template.end_of_text,
        )
        self.prompt = (self.template.end_of_text, *tokenizer.encode("Call something.").ids)

    def say(self, constraints: Sequence[Constraint | None], *, max_tokens: int = 600) -> list[Segment]:
        """A turn for each."""
        found: dict[str, Segment] = {}
        for number, constraint in enumerate(constraints):
            self.engine.submit(
                Request(
                    id=str(number), tokens=self.prompt, max_tokens=max_tokens, temperature=1.0, seed=number, constraint=constraint,
                    stop_tokens=frozenset({self.template.end, self.template.end_of_text}),
                )
            )  # fmt: skip
        while len(found) < len(constraints):
            found |= {one.request_id: one.segment for one in self.engine.step()}
        return [found[str(number)] for number in range(len(constraints))]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Untrained:
    return Untrained(tmp_path_factory.mktemp("untrained"))


def schemas(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Small ones, so that a model that knows nothing comes to an end of each value."""
    plain = st.one_of(
        st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 6)),
        st.builds(lambda a, b: {"type": "integer", "minimum": min(a, b), "maximum": max(a, b)}, st.integers(-999, 999), st.integers(-999, 999)),
        st.just({"type": "boolean"}),
        st.just({"type": "null"}),
        st.builds(lambda words: {"enum": words}, st.lists(st.one_of(st.text(max_size=5), st.integers(-9, 9)), min_size=1, max_size=4)),
        st.sampled_from([{"type": "string", "format": "date"}, {"type": "string", "pattern": "^[a-c]{2,4}$"}, {"const": {"a": [1, "é"]}}]),
    )  # fmt: skip
    if not depth:
        return plain
    inner = schemas(depth - 1)
    arrays = st.builds(
        lambda items, n: {"type": "array", "items": items, "minItems": n, "maxItems": n + 2}, inner, st.integers(0, 2)
    )
    return st.one_of(plain, arrays, objects(inner), st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner))


def objects(values: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.text(st.characters(blacklist_categories=["Cs"]), max_size=4)
    properties = st.dictionaries(names, values, max_size=3)
    return properties.flatmap(
        lambda made: st.builds(
            lambda required: {
                "type": "object",
                "properties": made,
                "required": required,
                "additionalProperties": False,
            },
            st.lists(st.sampled_from(sorted(made)), unique=True) if made else st.just([]),
        )
    )


TOOL_NAMES = st.lists(
    st.from_regex(r"[A-Za-z_.-][A-Za-z0-9_.-]{0,6}", fullmatch=True), min_size=1, max_size=3, unique=True
)


@given(data=st.data(), names=TOOL_NAMES, calls_before=st.integers(0, 40))
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_every_call_of_an_untrained_model_parses_names_a_tool_and_validates(
    untrained: Untrained, data: st.DataObject, names: list[str], calls_before: int
) -> None:
    tools = [{"name": name, "parameters": data.draw(objects(schemas(1)))} for name in names]
    by_name = {tool["name"]: tool["parameters"] for tool in tools}
    turns = [
        untrained.enforcer.turn(
            tools, calls_before=calls_before, choice="required", calls_at_most=1 + number % 3, is_exact=True
        )
        for number in range(4)
    ]
    for number, segment in enumerate(untrained.say(turns)):
        assert segment.ending is Ending.STOP, untrained.template.shown(segment.tokens)
        message = untrained.template.read_turn(segment.tokens, calls_before=calls_before)
        assert 1 <= len(message["tool_calls"]) <= 1 + number % 3
        for call in message["tool_calls"]:
            arguments = json.loads(call["function"]["arguments"])
            jsonschema.validate(arguments, by_name[call["function"]["name"]])


def test_a_free_turn_is_text_or_well_formed_calls_and_no_token_that_no_text_has(untrained: Untrained) -> None:
    tool = {
        "name": "add",
        "parameters": {
            "properties": {"number": {"type": "number"}},
            "required": ["number"],
            "additionalProperties": False,
        },
    }
    segments = untrained.say([untrained.enforcer.turn([tool]) for _ in range(12)])
    ended = [segment for segment in segments if segment.ending is Ending.STOP]
    assert len(ended) > 2
    calls = 0
    for segment in ended:
        assert max(segment.tokens) < untrained.model.config.vocab_size - ROOM
        if segment.tokens[-1] == untrained.template.end:
            message = untrained.template.read_turn(segment.tokens, calls_before=0)
            calls += len(message.get("tool_calls", ()))
    assert calls > 0
    without = untrained.say([untrained.enforcer.turn([]) for _ in range(4)])
    marked = [token for segment in without for token in segment.tokens if untrained.template.is_marker(token)]
    assert set(marked) <= {untrained.template.end, untrained.template.end_of_text}


def test_a_turn_that_was_paused_goes_on_under_the_same_rules(untrained: Untrained) -> None:
    tools = [
        {"name": "find", "parameters": {"properties": {"q": {"enum": ["a", "b"]}}, "required": ["q"]}},
        {"name": "find_all", "parameters": {"properties": {}, "additionalProperties": False}},
    ]

    def turn(said: Sequence[int] = ()) -> Any:
        return untrained.enforcer.turn(tools, choice="required", said=said, calls_at_most=2)

    [whole] = untrained.say([turn()])
    for cut in range(len(whole.tokens)):
        logits_V = torch.zeros(untrained.model.config.vocab_size)
        turn(whole.tokens[:cut]).mask(logits_V)
        assert logits_V[whole.tokens[cut]] == 0, cut
        assert torch.isinf(logits_V).sum() > 0
    broken = turn([untrained.enforcer.markers["section_begin"], untrained.template.end])
    logits_V = torch.zeros(untrained.model.config.vocab_size)
    broken.mask(logits_V)
    assert not torch.isinf(logits_V).any()


def test_what_is_recorded_is_the_policy_s_own_log_probability_bit_for_bit(untrained: Untrained) -> None:
    tool = {
        "name": "add",
        "parameters": {
            "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["number"],
            "additionalProperties": False,
        },
    }
    constraints = [untrained.enforcer.turn([tool], choice="required") if n % 2 else None for n in range(4)]
    segments = untrained.say(constraints, max_tokens=60)
    # An untrained policy gives each token some 1/300, and the grammar leaves few: the recorded number is not of the few.
    assert max(segments[1].logprobs) < -3
    prompt = read(TokenSource.PROMPT, list(untrained.prompt))
    group = group_of([member("g", n, [prompt, s], reward=float(n)) for n, s in enumerate(segments)])
    optimizer = build_optimizer(
        (model := copy.deepcopy(untrained.model)).named_parameters(),
        OptimizerConfig(newton_schulz_precision="float32"),
        model=model.config,
    )
    learner = Learner(
        model, optimizer, Ranks(0, 1, torch.device("cpu")), ObjectiveConfig(), watch=DivergenceWatch(), micro_tokens=4096
    )  # fmt: skip
    [minibatch] = learner.anchor([group], version=0)
    metrics = learner.step(0, minibatch).metrics
    assert metrics["rl/mismatch_max"] == metrics["rl/mismatch_kl"] == 0.0


def test_a_schema_that_makes_no_grammar_is_refused_by_name_or_followed_as_far_as_it_goes(untrained: Untrained) -> None:
    parameters = {"properties": {"n": {"type": "array", "items": {"type": "null"}, "maxItems": 2, "uniqueItems": True}}}
    tool = {"name": "odd", "parameters": {**parameters, "required": ["n"], "additionalProperties": False}}
    with pytest.raises(AbruzziError, match=r"The tool odd: its JSON Schema makes no grammar.*uniqueItems"):
        untrained.enforcer.turn([tool], is_exact=True)
    [segment] = untrained.say([untrained.enforcer.turn([tool], choice="required", calls_at_most=1)])
    [call] = untrained.template.read_turn(segment.tokens)["tool_calls"]
    assert set(json.loads(call["function"]["arguments"])["n"]) <= {None}
    with pytest.raises(AbruzziError, match="makes no grammar"):
        untrained.enforcer.answer({"type": "nothing"})


def test_an_answer_by_a_schema_is_that_json_alone(untrained: Untrained) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": -5, "maximum": 5}},
        "required": ["x"],
        "additionalProperties": False,
    }
    for segment in untrained.say([untrained.enforcer.answer(schema) for _ in range(4)]):
        answer = untrained.template.read_turn(segment.tokens)
        jsonschema.validate(json.loads(answer["content"]), schema)
        assert segment.tokens[-1] == untrained.template.end
