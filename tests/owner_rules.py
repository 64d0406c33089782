"""The owners' own checkers of verifiable instructions: IFBench's and lm-eval's IFEval, without what both download when they are imported.

With a folder of NLTK's data all is theirs. Without one, Punkt comes out of a package that carries its English model, and IFBench's `words:start_verb`, whose
tagger no package carries, cannot be asked.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import nltk
import punkt

from abruzzi_jobs.evals.scorers.ifbench_rules import STOP_WORDS

NEEDS_A_TAGGER = "words:start_verb"
Followed = tuple[tuple[bool, ...], tuple[bool, ...]]
"""Each rule of a prompt to the letter, and in one of eight readings."""


class Owners:
    def __init__(self, ifbench: Any, ifeval: Any) -> None:
        self._ifbench, self._ifeval = ifbench, ifeval

    def ifbench(
        self, names: Sequence[str], params: Sequence[Mapping[str, Any]], prompt: str, text: str
    ) -> Followed | None:
        """None where the owner's code raises."""

        def asked() -> Any:
            kwargs = [{key: value for key, value in given.items() if value is not None} for given in params]
            return self._ifbench.InputExample(key=0, instruction_id_list=list(names), prompt=prompt, kwargs=kwargs)

        try:
            strict = self._ifbench.test_instruction_following_strict(asked(), {prompt: text})
            return _both(strict, self._ifbench.test_instruction_following_loose(asked(), {prompt: text}))
        except Exception:
            return None

    def ifeval(
        self, names: Sequence[str], params: Sequence[Mapping[str, Any]], prompt: str, text: str
    ) -> Followed | None:
        """None where the owner's code raises."""
        kwargs = [dict(given) for given in params]
        asked = self._ifeval.InputExample(key=0, instruction_id_list=list(names), prompt=prompt, kwargs=kwargs)
        try:
            strict = self._ifeval.test_instruction_following_strict(asked, text)
            return _both(strict, self._ifeval.test_instruction_following_loose(asked, text))
        except Exception:
            return None


@contextmanager
def owners(data: Path | None = None) -> Iterator[Owners]:
    """While it lasts NLTK downloads nothing: the owners' code asks it to at each check."""
    modules = {name: ModuleType(name) for name in ("spacy", "spacy.cli")}
    modules["spacy.cli"].download = modules["spacy"].cli = lambda *_, **__: None
    with ExitStack() as patched:
        patched.enter_context(patch.object(nltk, "download", lambda *_, **__: True))
        with ExitStack() as importing:
            importing.enter_context(patch.dict(os.environ, LOCAL_RANK="1"))  # lm-eval's rank 0 downloads
            added = {name: module for name, module in modules.items() if name not in sys.modules}
            sys.modules |= added
            found = Owners(*map(importlib.import_module, ("ifbench.evaluation_lib", "lm_eval.tasks.ifeval.utils")))
            for name in added:
                del sys.modules[name]
        importlib.import_module("langdetect").DetectorFactory.seed = 0  # or it draws
        if data is not None:
            patched.enter_context(patch.object(nltk.data, "path", [str(data), *nltk.data.path]))
        else:
            tokenize = importlib.import_module("nltk.tokenize")
            patched.enter_context(patch.object(tokenize, "_get_punkt_tokenizer", functools.cache(punkt.tokenizer_for)))
            stop_words = SimpleNamespace(words=lambda language: sorted(STOP_WORDS))
            patched.enter_context(patch.object(nltk.corpus, "stopwords", stop_words))
            for name in ("ifbench.instructions_util", "lm_eval.tasks.ifeval.instructions_util"):
                patched.enter_context(patch.object(sys.modules[name], "_get_sentence_tokenizer", punkt.tokenizer_for))
        yield found


def _both(strict: Any, loose: Any) -> Followed:
    return tuple(map(bool, strict.follow_instruction_list)), tuple(map(bool, loose.follow_instruction_list))
