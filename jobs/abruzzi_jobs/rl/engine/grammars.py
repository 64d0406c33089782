"""JSON Schemas as grammars over a vocabulary (llguidance, ADR 12): which token may come next, so that the text is JSON that the schema allows.

JSON is written in the compact form in which models see it (`sft.conversation.compact`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray
from tokenizers import Tokenizer

from abruzzi.contracts.errors import AbruzziError
from abruzzi_jobs.data.token_text import special_ids, token_contents

LARGEST = 1e15
"""Of a number whose schema has no bound: beyond it JSON needs an exponent, and with one `1e999` is a number that no program can hold."""
_KEPT = 1024
"""Compiled schemas."""
_NUMBERS = ("number", "integer")

logger = logging.getLogger(__name__)


class Grammars:
    """`end`: the special token that is allowed where the JSON is whole."""

    def __init__(self, tokenizer: Tokenizer, *, end: int) -> None:
        self._tokenizer, self._end = tokenizer, end
        self._size = tokenizer.get_vocab_size()
        self._compiled: dict[str, LLMatcher] = {}

    def json(self, schema: Mapping[str, Any], *, what: str, is_exact: bool = False) -> JsonText:
        """A text that has not begun. Raises AbruzziError unsupported_schema, where `is_exact` also for keywords that no grammar knows; else they are left
        to whoever reads the text. `what`: whose schema it is, for errors."""
        key = f"{is_exact} {json.dumps(schema, sort_keys=False)}"
        found = self._compiled.get(key)
        if found is None:
            if len(self._compiled) >= _KEPT:
                self._compiled.clear()
            found = self._compiled[key] = self._new(schema, what, is_exact)
        return JsonText(found.deep_copy(), self._size)

    def _new(self, schema: Mapping[str, Any], what: str, is_exact: bool) -> LLMatcher:
        problem = ""
        for lenient in (False,) if is_exact else (False, True):
            options: Any = {"whitespace_flexible": False, "lenient": lenient}
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(_bounded(schema)), overrides=options)
            matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
            if not matcher.is_error():
                if lenient:
                    logger.warning("%s: calls follow its schema but for this: %s", what, problem)
                return matcher
            problem = problem or matcher.get_error().splitlines()[0]
        raise AbruzziError(
            "unsupported_schema",
            f"{what}: its JSON Schema makes no grammar: {problem}.",
            hint="Leave the keyword out, or say it in the description.",
        )

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(_Vocabulary(self._tokenizer, self._end)), n_vocab=self._size)


class JsonText:
    """One text, token by token."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher, self._size = matcher, size

    def allowed(self) -> NDArray[np.bool_]:
        """[tokens of the tokenizer]"""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        return np.unpackbits(bits, bitorder="little")[: self._size].astype(np.bool_)

    def accept(self, token: int) -> bool:
        """False for a token that was not allowed; the text is lost then."""
        return self._matcher.consume_token(token)


class _Vocabulary:
    """What llguidance reads of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        special = special_ids(tokenizer)
        self.eos_token_id, self.bos_token_id = end, None
        self.tokens = token_contents(tokenizer)
        self.special_token_ids = special
        for number in special:
            self.tokens[number] = f"<|{number}|>".encode()
        self._tokenizer = tokenizer

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("texts are str here")  # it asks
        return self._tokenizer.encode(text, add_special_tokens=False).ids


def _bounded(schema: Any) -> Any:
    """The same schema with `LARGEST` for numbers without bounds."""
    if isinstance(schema, list):
        return [_bounded(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: value if key in ("const", "enum", "default", "examples") else _bounded(value)
        for key, value in schema.items()
    }
    kinds = schema.get("type")
    if any(kind in _NUMBERS for kind in (kinds if isinstance(kinds, list) else [kinds])) and not {
        "enum",
        "const",
    } & set(schema):
        if not {"minimum", "exclusiveMinimum"} & set(schema):
            made["minimum"] = -LARGEST
        if not {"maximum", "exclusiveMaximum"} & set(schema):
            made["maximum"] = LARGEST
    return made
