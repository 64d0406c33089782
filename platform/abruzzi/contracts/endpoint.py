"""Endpoints and roles: who thinks, and where (design section 7).

An endpoint is a server that speaks the OpenAI protocol for chats: somebody's, or one that the platform starts for the stage. A role
(rephraser, judge, …) is what a stage asks for; the recipe says which endpoint plays it, so the same stage runs with a small model on a
laptop and with a large one on a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StrictFloat, StrictInt, StringConstraints, field_validator, model_validator

from abruzzi.contracts.quantity import ByteCount, Count, Seconds
from abruzzi.contracts.training import Strict, YarnConfig

EndpointName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]

_SECRET = re.compile(r"^secret:([a-z][a-z0-9-]{0,62})$")


class ChatRole(StrEnum):
    """What a stage asks an endpoint for."""

    REPHRASER = "rephraser"
    TRANSLATOR = "translator"
    VERIFIER = "verifier"
    TOOL_AUTHOR = "tool_author"
    AGENT = "agent"
    USER = "user"
    TOOL_SIMULATOR = "tool_simulator"
    JUDGE = "judge"
    TARGET = "target"
    """Who is evaluated or attacked."""
    CRITIC = "critic"
    ATTACKER = "attacker"
    EMBEDDER = "embedder"
    """Gives vectors of texts (/embeddings) instead of answers; played by endpoints of kind openai."""


class EndpointKind(StrEnum):
    OPENAI = "openai"
    """Any server that speaks the protocol: a vendor's, vLLM, SGLang."""
    SMOLLM2 = "smollm2"
    """SmolLM2-135M-Instruct from a package, served beside the stage: a real model that needs no hub and no network."""
    CHECKPOINT = "checkpoint"
    """A checkpoint of this recipe, served beside the stage by the platform's own engine."""
    STANDIN = "standin"
    """Rules, no model. For tests; whatever it says is marked, and no dataset that claims a language model takes it."""


class PlantedFault(StrEnum):
    """What the stand-in's rewrites get wrong on purpose, so that a verifier can be measured."""

    DROP_NUMBER = "drop_number"
    CHANGE_NUMBER = "change_number"
    SWAP_ENTITY = "swap_entity"
    FLIP_NEGATION = "flip_negation"
    ADD_CLAIM = "add_claim"


def secret_name(reference: str) -> str:
    """`teacher-key` of `secret:teacher-key`. Raises ValueError, which never repeats what was given: people put the key itself there."""
    match = _SECRET.match(reference)
    if match is None:
        raise ValueError(
            'takes a reference, never the key itself: write "secret:NAME" (small letters, digits and "-"), and give the key to the '
            "platform as ABRUZZI_SECRET_NAME (capitals, with _ for -)"
        )
    return match[1]


def secret_variable(reference: str) -> str:
    """Where the key of `secret:teacher-key` is found: ABRUZZI_SECRET_TEACHER_KEY."""
    return "ABRUZZI_SECRET_" + secret_name(reference).upper().replace("-", "_")


def _reference(value: Any) -> Any:
    if value is not None:
        secret_name(value if isinstance(value, str) else "")
    return value


class EndpointBase(Strict):
    """Limits that hold for all roles of a stage's process together."""

    kind: EndpointKind
    concurrency: StrictInt = Field(default=8, ge=1, le=4096)
    """Calls under way at a time."""
    requests_per_minute: Count | None = Field(default=None, gt=0)
    tokens_per_minute: Count | None = Field(default=None, gt=0)
    """Of prompts and answers. A call is let through by what it may need, and the rate corrected by what it did need."""
    timeout: Seconds = Field(default=120.0, gt=0)
    """Of one try of one call."""
    max_tries: StrictInt = Field(default=6, ge=1, le=20)
    """Tries of one call, with growing pauses between them (a second at first, a minute at most)."""
    max_answer_bytes: ByteCount = Field(default=8 << 20, ge=1024)
    """A longer answer is not read to its end; the call is rejected."""


class OpenAiEndpoint(EndpointBase):
    kind: Literal[EndpointKind.OPENAI]
    base_url: str
    """Such as https://llm.example.org/v1: what /chat/completions, of an embedder /embeddings, is appended to."""
    model: str = Field(min_length=1, max_length=200)
    api_key: Annotated[str | None, BeforeValidator(_reference)] = None
    """"secret:NAME". Never the key."""

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError('is no http or https URL; expected the form "https://host/v1"')
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError('holds more than scheme, host, port and path; a key belongs into api_key = "secret:NAME"')
        return value.rstrip("/").removesuffix("/chat/completions").removesuffix("/embeddings")


class SmolLm2Endpoint(EndpointBase):
    kind: Literal[EndpointKind.SMOLLM2]
    concurrency: StrictInt = Field(default=2, ge=1, le=64)
    context: Count = Field(default=2048, ge=256, le=8192)
    """Tokens of prompt and answer of one call; memory grows with this times concurrency."""
    threads: StrictInt | None = Field(default=None, gt=0)
    timeout: Seconds = Field(default=600.0, gt=0)


class CheckpointEndpoint(EndpointBase):
    kind: Literal[EndpointKind.CHECKPOINT]
    checkpoint: str
    """Of this recipe, such as "pretrain.checkpoint" (the stage that asks must need that stage), or "artifact:ID" of any run."""
    tokenizer: str
    """The one that it was trained with, such as "tokenize.tokenizer"."""
    yarn: YarnConfig | None = None
    """Turn positions so, whatever it was trained with: how a context beyond the trained one is reached (paper section 2.5). Absent: as it was trained."""
    threads: StrictInt | None = Field(default=None, gt=0)
    timeout: Seconds = Field(default=600.0, gt=0)


class StandInEndpoint(EndpointBase):
    kind: Literal[EndpointKind.STANDIN]
    concurrency: StrictInt = Field(default=64, ge=1, le=4096)
    faults: dict[PlantedFault, Annotated[StrictFloat, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Share of rewrites that get each fault, such as { drop_number = 0.1 }."""
    error_rate: StrictFloat = Field(default=0.0, ge=0, le=1)
    """How often the stand-in spoils the task that it plays as an agent: does nothing, stops early, takes a wrong value, tells a wrong answer."""


Endpoint = Annotated[
    OpenAiEndpoint | SmolLm2Endpoint | CheckpointEndpoint | StandInEndpoint, Field(discriminator="kind")
]

ENDPOINT_CLASSES: dict[EndpointKind, type[EndpointBase]] = {
    EndpointKind.OPENAI: OpenAiEndpoint,
    EndpointKind.SMOLLM2: SmolLm2Endpoint,
    EndpointKind.CHECKPOINT: CheckpointEndpoint,
    EndpointKind.STANDIN: StandInEndpoint,
}


class RoleConfig(Strict):
    """Who plays a role, how it is asked, and how much it may cost. A bare name means the endpoint with nothing else set."""

    endpoint: EndpointName
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    """Absent, as of top_p: the server's own."""
    top_p: StrictFloat | None = Field(default=None, gt=0, le=1)
    max_tokens: Count | None = Field(default=None, gt=0)
    """Of one answer."""
    budget_tokens: Count | None = Field(default=None, gt=0)
    """Prompts and answers of all calls of the stage, over all its attempts. When it is used up no call is begun; those under way end."""
    budget_calls: Count | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"endpoint": data} if isinstance(data, str) else data


RoleTable = Mapping[ChatRole, RoleConfig] | Mapping[str, RoleConfig]
"""Who plays what: by a role's word, or by a name of the stage's own where one role is played by several."""


def endpoints_of(roles: RoleTable, endpoints: Mapping[str, EndpointBase]) -> dict[str, Any]:
    """Those of `endpoints` that the roles name, in the order of their names."""
    named = {role.endpoint for role in roles.values()}
    return {name: endpoint for name, endpoint in sorted(endpoints.items()) if name in named}
