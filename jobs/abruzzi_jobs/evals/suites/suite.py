"""What a suite is: items, how a target is asked about one, and what its answer is worth.

A suite is a class that is made with its settings; `registry.open_suite` finds it by name. It says nothing of how many are asked at a time, of
retries or of what is kept: that is the runner's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.request import ChatBackend, ChatRequest, ChatResponse, Message

Ask = Callable[[ChatRequest], Awaitable[ChatResponse]]
"""One call to the target. Temperature, cap and number of the sample are the runner's to add; what it raises goes through to the runner."""
Helpers = Mapping[str, ChatBackend]
"""Other roles that the recipe gave, such as `judge` and `user`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcript:
    """How one answer came about, and all that a scorer may look at."""

    messages: tuple[Message, ...]
    """The whole conversation: what was asked, what the target said and called, what tools gave back."""
    answer: str
    """The last thing that the target said."""
    state: Any = None
    """What its world has become, of a suite that plays in one; plain JSON."""
    truncated: bool = False
    """Whether an answer of the target reached the cap."""


class Suite(Protocol):
    name: ClassVar[str]
    version: ClassVar[int]
    """A change of what items, prompts or scores are is a new one."""
    summary: ClassVar[str]
    """One sentence for people, with the number of items."""
    licence: ClassVar[str]
    source: ClassVar[str]
    """Whose items these are: a paper, and the package or the file that holds them."""
    defaults: ClassVar[SuiteSettings]
    asks: ClassVar[tuple[str, ...]]
    """Roles beside the target that it needs, such as ("judge",)."""
    settings: SuiteSettings
    left_out: tuple[str, ...]
    """What it has and cannot ask here, by name, where its settings let it leave that out."""

    def __init__(self, settings: SuiteSettings) -> None: ...

    def items(self) -> Iterator[Item]:
        """In one order, always the same, one at a time: a suite of millions is never in memory.

        Raises AbruzziError bad_data for a malformed item, with its file and line, and where the items are not there."""
        ...

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        """Asks the target about one item, in one turn or in many."""
        ...

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        """Depends on its arguments alone. What it raises is the infrastructure's failure, never a wrong answer: a scorer that cannot read an answer
        returns a score of 0, one whose judge says nothing usable the status grader_error."""
        ...

    def gold_answer(self, item: Item) -> str | None:
        """What scores 1, for the oracle test; None where nobody can say."""
        ...

    def perturbed_answer(self, item: Item) -> str | None:
        """What looks like it and scores 0."""
        ...


class QuestionSuite(ABC):
    """A suite whose items are one question with one answer."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    licence: ClassVar[str]
    source: ClassVar[str]
    defaults: ClassVar[SuiteSettings] = SuiteSettings()
    asks: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[str, ...] | None] = None
    """The options that it knows. None: it looks at them itself."""
    left_out: tuple[str, ...] = ()

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options` for an option that it does not know, which would change nothing."""
        self.settings = settings
        takes = settings.options if self.takes is None else self.takes
        for option in settings.options:
            if option not in takes:
                known = nearest(option, list(takes)) if takes else "It has none."
                raise AbruzziError("bad_options", f"suite {self.name}: there is no option {option!r}.", hint=known)

    @abstractmethod
    def items(self) -> Iterator[Item]: ...

    @abstractmethod
    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict: ...

    def messages(self, item: Item) -> list[Message]:
        """What the target is shown."""
        return [{"role": "user", "content": item.prompt}]

    async def play(self, item: Item, ask: Ask, helpers: Helpers) -> Transcript:
        messages = self.messages(item)
        return answered(messages, await ask(ChatRequest(messages=messages)))

    def gold_answer(self, item: Item) -> str | None:
        return None

    def perturbed_answer(self, item: Item) -> str | None:
        return None


def answered(messages: list[Message], response: ChatResponse) -> Transcript:
    """A conversation that ends with this response."""
    return Transcript(
        messages=(*messages, response.message()),
        answer=response.text,
        truncated=response.finish_reason == "length",
    )
