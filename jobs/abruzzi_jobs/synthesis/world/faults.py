"""What goes wrong in a world besides the agent's own mistakes: by a schedule that depends on its seed and the number of the call alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

Fault = Literal["unavailable", "rate_limited", "lost_answer", "partial"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Shares of calls. `unavailable` and `rate_limited`: nothing happens. `lost_answer`: it is done, but the caller hears of a timeout.
    `partial`: a list is cut to its first half and says so (other calls succeed)."""

    seed: int = 0
    unavailable: float = 0.0
    rate_limited: float = 0.0
    lost_answer: float = 0.0
    partial: float = 0.0

    def fault(self, call: int) -> Fault | None:
        point = random.Random(f"fault/{self.seed}/{call}").random()
        kinds: tuple[Fault, ...] = ("unavailable", "rate_limited", "lost_answer", "partial")
        for kind in kinds:
            point -= getattr(self, kind)
            if point < 0:
                return kind
        return None
