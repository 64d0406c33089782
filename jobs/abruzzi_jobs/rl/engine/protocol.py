"""What an inference engine for rollouts does: tokens in, tokens out, in steps; paused, put to sleep and given new weights between two of them.

`step` advances all running requests by one token, so pausing, updating and cancelling happen between steps and need no locks. Draws are by (seed, position of the
token in its sequence): a request's tokens do not depend on what is decoded beside it, and a resumed request goes on as if it had never been paused
(reference/rl.md 8, invariants 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from abruzzi.contracts.rollout import Segment


class Constraint(Protocol):
    """What a request may say, token by token: a grammar, tokens that are never to be drawn."""

    def mask(self, logits_V: Tensor) -> None:
        """Sets those of tokens that may not come next to −inf, in place."""
        ...

    def accept(self, token: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    id: str
    tokens: tuple[int, ...]
    """All so far: prompt, and what was generated before a pause."""
    max_tokens: int
    temperature: float
    """0 is greedy; log-probabilities are then those of temperature 1."""
    seed: int
    stop_tokens: frozenset[int]
    group: str = ""
    """Those that begin alike share what is alike in the cache in any case; of one group, one waits until the other's beginning is computed."""
    top_p: float = 1.0
    """Nucleus: the smallest set of likeliest tokens whose probability reaches it. Log-probabilities are of the distribution that is left."""
    constraint: Constraint | None = None
    """In this process only, and this request's own. Log-probabilities are the policy's own, as if there were no constraint (and no `top_p`): what a trainer
    finds again, and what the objective is about (ADR 12)."""
    streamed: bool = False
    """Its tokens are handed out by `drawn` as they come."""
    top_logprobs: int = 0
    """Of a streamed request: so many of the likeliest tokens beside each."""


@dataclass(frozen=True, slots=True)
class Generated:
    request_id: str
    segment: Segment


@dataclass(frozen=True, slots=True)
class Drawn:
    """One token of a streamed request."""

    request_id: str
    token: int
    logprob: float
    """At temperature 1, whatever it was drawn with, of what its constraint leaves."""
    top: tuple[tuple[int, float], ...] = ()
    """(token, log-probability), the likeliest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    version: int
    running: int
    waiting: int
    cache_tokens: int
    """Positions in the cache that running requests need; what is kept for others to come gives way."""
    cache_capacity: int
    prompt_tokens: int
    """Computed since the start; those that a prefix spared are not in it."""
    shared_tokens: int
    """Spared by prefixes."""
    generated_tokens: int


class Engine(Protocol):
    @property
    def version(self) -> int:
        """Of the weights; monotonic."""
        ...

    def submit(self, request: Request) -> None:
        """Raises ValueError where the id is in use or the tokens leave no room before the model's last position."""
        ...

    def step(self) -> list[Generated]:
        """One token for each running request (and a share of the waiting prompts); those that ended. None moves while paused."""
        ...

    def drawn(self) -> list[Drawn]:
        """Of streamed requests, since the last call."""
        ...

    def cancel(self, request_id: str) -> Generated | None:
        """Ends it as `aborted`; None where it is not known any more."""
        ...

    def pause(self, mode: Literal["keep", "abort"]) -> list[Generated]:
        """`keep`: requests stay and go on after `resume`; a weight update ends them as `paused` after all, given by the next `step`. `abort`: all end as
        `paused`, with their tokens."""
        ...

    def resume(self) -> None: ...

    def sleep(self, level: Literal[1, 2]) -> None:
        """Frees the cache (1), and the weights, too (2): afterwards a weight update must come before `wake`. Only when paused."""
        ...

    def wake(self) -> None: ...

    def begin_update(self, version: int) -> None:
        """Only when paused; versions only grow. Until `finish_update` the old weights are served, or nothing."""
        ...

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Parameters by their logical names; copied, so that the caller may use the memory again. Raises ValueError for a strange name or shape."""
        ...

    def load_piece(self, name: str, start: int, flat: Tensor) -> None:
        """Elements from `start` on of one parameter, in its order in memory, for buckets that are smaller than it."""
        ...

    def finish_update(self, version: int) -> None:
        """All or nothing: raises ValueError where a parameter is missing, and the old version stays."""
        ...

    def abandon_update(self) -> None:
        """As if `begin_update` had never been called."""
        ...

    def logprobs(self, sequences: Sequence[Sequence[int]], *, temperature: float) -> list[list[float]]:
        """Of each token but the first, given those before it."""
        ...

    def stats(self) -> EngineStats: ...
