"""What each role cost, and whether it may ask for more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from abruzzi.contracts.endpoint import RoleConfig
from abruzzi_jobs.chat.embeddings import Embeddings
from abruzzi_jobs.chat.failures import BudgetReached
from abruzzi_jobs.chat.request import ChatResponse


@dataclass(slots=True)
class Account:
    """Of one role in one rank's share of the work, over all attempts; `cache_hits` are this attempt's."""

    calls: int = 0
    """Answered by the endpoint."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_calls: int = 0
    """Calls whose tokens the server did not count."""
    seconds: float = 0.0
    """Of the endpoint, over all calls; those under way at the same time count apiece."""
    cache_hits: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    """By reason."""
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def take(self, response: ChatResponse | Embeddings) -> None:
        usage = response.usage
        self._add(usage.prompt_tokens, usage.completion_tokens, response.seconds, usage.is_estimated)

    def restore(self, record: Mapping[str, Any]) -> None:
        """A call out of the log."""
        self.retries.update(record.get("retries", ()))
        if response := record.get("response"):
            prompt_tokens, completion_tokens, is_estimated = response["usage"]
            self._add(prompt_tokens, completion_tokens, record["seconds"], is_estimated)
        else:
            self.rejected[record["rejected"]["reason"]] += 1

    def _add(self, prompt_tokens: int, completion_tokens: int, seconds: float, is_estimated: bool) -> None:
        self.calls += 1
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.seconds += seconds
        self.estimated_calls += is_estimated

    def check(self, role: str, config: RoleConfig) -> None:
        """Raises BudgetReached where no more calls may be begun."""
        for what, used, budget in (
            ("tokens", self.tokens, config.budget_tokens),
            ("calls", self.calls, config.budget_calls),
        ):
            if budget is not None and used >= budget:
                raise BudgetReached(role, what=what, used=used, budget=budget)

    def as_dict(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "estimated_calls": self.estimated_calls,
            "seconds": round(self.seconds, 3),
            "cache_hits": self.cache_hits,
            "retries": dict(sorted(self.retries.items())),
            "rejected": dict(sorted(self.rejected.items())),
        }


def metrics_of(accounts: dict[str, Account]) -> dict[str, float]:
    """Totals so far, for `Reporter.log`: chat/<role>/<what>."""
    found: dict[str, float] = {}
    for role, account in accounts.items():
        numbers = {
            "calls": account.calls,
            "prompt_tokens": account.prompt_tokens,
            "completion_tokens": account.completion_tokens,
            "seconds": account.seconds,
            "cache_hits": account.cache_hits,
            "retries": account.retries.total(),
            "rejected": account.rejected.total(),
        }
        found |= {f"chat/{role}/{name}": float(value) for name, value in numbers.items()}
    return found
