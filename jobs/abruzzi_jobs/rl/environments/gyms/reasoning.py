"""The procedural tasks of `reasoning-gym` (arXiv 2505.24760) with their verifiers. A task names its dataset, configuration and seed; the verifier makes
the same entry again from these."""

from __future__ import annotations

import random
import re
from typing import Any

from pydantic import Field

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi.contracts.rollout import Outcome, Task
from abruzzi.contracts.training import Strict
from abruzzi_jobs.rl.environments.answers import scored
from abruzzi_jobs.rl.environments.single_turn import QuestionGym

DATASETS: dict[str, tuple[str, ...]] = {
    "algebra": ("complex_arithmetic", "intermediate_integration", "polynomial_equations", "polynomial_multiplication", "simple_equations", "simple_integration"),
    "algorithmic": ("base_conversion", "binary_alternation", "binary_matrix", "caesar_cipher", "count_primes", "cryptarithm", "group_anagrams", "isomorphic_strings", "jugs", "letter_counting", "letter_jumble", "manipulate_matrix", "number_filtering", "number_sorting", "palindrome_generation", "palindrome_partitioning", "pool_matrix", "ransom_note", "rotate_matrix", "rotten_oranges", "sentence_reordering", "spell_backward", "spiral_matrix", "string_insertion", "string_manipulation", "string_splitting", "string_synthesis", "word_ladder", "word_sequence_reversal", "word_sorting"),
    "arithmetic": ("basic_arithmetic", "bitwise_arithmetic", "calendar_arithmetic", "chain_sum", "count_bits", "decimal_arithmetic", "decimal_chain_sum", "dice", "fraction_simplification", "gcd", "gsm_symbolic", "lcm", "leg_counting", "number_format", "power_function", "prime_factorization", "products", "time_intervals"),
    "cognition": ("color_cube_rotation", "modulo_grid", "needle_haystack", "number_sequence", "rectangle_count"),
    "games": ("countdown", "emoji_mystery", "knight_swap", "mini_sudoku", "n_queens", "puzzle24", "survo", "tower_of_hanoi"),
    "geometry": ("advanced_geometry", "simple_geometry"),
    "graphs": ("course_schedule", "family_relationships", "largest_island", "quantum_lock", "shortest_path"),
    "logic": ("aiw", "circuit_logic", "knights_knaves", "self_reference", "syllogism", "zebra_puzzles"),
    "probability": ("coin_flip",),
}  # fmt: skip
"""By category, those whose questions and answers are plain text of a few lines, whose verifiers take their own answers, and that are drawn in a moment
(of 0.1.25: not propositional_logic, not futoshiki)."""
_FORM = "\n\nWrite the result, in the form that is asked for, behind `Answer:` at the end."
_ANSWER = re.compile(r"answer\s*:", re.IGNORECASE)


class ReasoningOptions(Strict):
    datasets: tuple[str, ...] = ()
    """Absent: all of the families that are asked for."""
    config: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By dataset: parameters of its difficulty, as reasoning-gym names them."""


class Reasoning(QuestionGym):
    name = "reasoning"
    summary = "reasoning-gym: 81 kinds of procedural problems of algebra, arithmetic, algorithms, logic, graphs and games, each with its verifier."
    families = tuple(DATASETS)
    Options = ReasoningOptions

    def refuse_unless_ready(self) -> None:
        _package()
        known = [name for names in DATASETS.values() for name in names]
        for name in (*self.options.datasets, *self.options.config):
            if name not in known:
                raise AbruzziError(
                    "bad_options", f"environment {self.name}: no dataset is called {name!r}.", hint=nearest(name, known)
                )

    def draw(self, draw: random.Random, family: str) -> dict[str, Any] | None:
        wanted = [name for name in DATASETS[family] if not self.options.datasets or name in self.options.datasets]
        if not wanted:
            return None
        made = {"dataset": draw.choice(wanted), "seed": draw.getrandbits(31)}
        made["config"] = self.options.config.get(made["dataset"], {})
        entry = _entry(made)[1]
        return {**made, "prompt": entry["question"].rstrip() + _FORM, "answer": f"Answer: {entry['answer']}"}

    def judge(self, task: Task, text: str) -> Outcome:
        """The verifier's own score, which knows partial solutions for some datasets."""
        dataset, entry = _entry(task.data)
        found = _ANSWER.split(text)[-1].strip()
        score, why = _score(dataset, entry, found) if found else (0.0, "no answer")
        stated = float(_ANSWER.search(text) is not None)
        return scored(self.reference, score, detail=why, correct=float(score == 1.0), score=score, format=stated)


def _score(dataset: Any, entry: dict[str, Any], answer: str) -> tuple[float, str]:
    """Some verifiers raise at what they cannot read. Where they take the entry's own answer, it is the policy's fault that they cannot; where they do
    not, it is theirs, and is raised."""
    try:
        return min(1.0, max(0.0, float(dataset.score_answer(answer, entry)))), ""
    except Exception as error:
        if dataset.score_answer(str(entry["answer"]), entry) != 1.0:
            raise
        return 0.0, f"the verifier cannot read it ({type(error).__name__}: {error})"[:300]


def _entry(data: Any) -> tuple[Any, dict[str, Any]]:
    dataset = _package().create_dataset(data["dataset"], size=1, seed=data["seed"], **data["config"])
    return dataset, dataset[0]


def _package() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise AbruzziError(
            "missing_package",
            f"The environment reasoning needs the package reasoning-gym, which is not installed here ({error}).",
            hint="pip install reasoning-gym==0.1.25 (it wants a C compiler), or serve it from an installation of its own.",
        ) from error
    return reasoning_gym
