"""Tasks that are neither solved nor out of reach, by pass@k (paper 3.2.1). Pure."""

from __future__ import annotations

from math import comb

from abruzzi.contracts.objective import DifficultyBand


def pass_at_k(attempts: int, correct: int, k: int) -> float:
    """Unbiased: 1 − C(n − c, k) / C(n, k) (arXiv 2107.03374). Raises ValueError where it is not defined."""
    if not (0 <= correct <= attempts and 1 <= k <= attempts):
        raise ValueError(
            f"pass@{k} of {correct} right in {attempts}: needs 0 <= right <= attempts and 1 <= k <= attempts"
        )
    return 1 - comb(attempts - correct, k) / comb(attempts, k)


def in_band(band: DifficultyBand, *, attempts: int, correct: int) -> bool:
    return band.low <= pass_at_k(attempts, correct, band.k) <= band.high
