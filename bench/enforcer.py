"""What a constrained token costs: the mask of a call's arguments by llguidance (ours, `rl/engine/grammars.py`) beside xgrammar, on byte-level vocabularies of three sizes.

A token's cost is its mask as booleans, and the grammar's step after the draw. Both libraries write the same JSON (compact, the same schema); the draws are the same choice among
what is allowed. xgrammar is measured where it can be imported (it brings transformers, triton and tvm-ffi with it; `pip install --no-deps --target DIR xgrammar
apache-tvm-ffi ml-dtypes` beside this environment will do).

    PYTHONPATH=DIR python bench/enforcer.py --out enforcer.json
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import machine, report
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

SIZES = (512, 4096, 131072)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "town": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"enum": ["celsius", "fahrenheit"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}},
    },
    "required": ["town", "days"],
    "additionalProperties": False,
}
Play = Callable[[int], tuple[float, int]]
"""(seed) → (seconds, tokens) of one text"""


class Vocabulary:
    bos_token_id = None

    def __init__(self, size: int) -> None:
        rng, found = random.Random(1), {bytes([byte]) for byte in range(256)}
        letters = b'abcdefghijklmnopqrstuvwxyz _":,{}0123456789'
        while len(found) < size - 1:
            found.add(bytes(rng.choice(letters) for _ in range(rng.randint(2, 8))))
        self.tokens = [*sorted(found), b"<|end|>"]
        self.eos_token_id = size - 1
        self.special_token_ids = [self.eos_token_id]
        self._bytes = {token: number for number, token in enumerate(self.tokens) if len(token) == 1}

    def __call__(self, text: str) -> list[int]:
        return [self._bytes[bytes([byte])] for byte in text.encode()]


def llguidance_play(vocabulary: Vocabulary) -> tuple[Play, dict[str, float]]:
    size = len(vocabulary.tokens)
    began = time.perf_counter()
    tokenizer = LLTokenizer(TokenizerWrapper(vocabulary), n_vocab=size)
    ready = time.perf_counter()
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(SCHEMA), overrides={"whitespace_flexible": False})
    matcher = LLMatcher(tokenizer, grammar)
    compiled = time.perf_counter()

    def play(seed: int) -> tuple[float, int]:
        own = matcher.deep_copy()

        def mask() -> np.ndarray:
            return np.unpackbits(np.frombuffer(own.compute_bitmask(), np.uint8), bitorder="little")[:size]

        return walk(mask, own.consume_token, vocabulary.eos_token_id, seed)

    return play, {"vocabulary_s": ready - began, "compile_s": compiled - ready}


def xgrammar_play(vocabulary: Vocabulary) -> tuple[Play, dict[str, float]]:
    xgrammar: Any = importlib.import_module("xgrammar")
    size, end = len(vocabulary.tokens), vocabulary.eos_token_id
    began = time.perf_counter()
    known = xgrammar.TokenizerInfo(
        vocabulary.tokens, vocab_type=xgrammar.VocabType.RAW, vocab_size=size, stop_token_ids=[end]
    )
    compiler = xgrammar.GrammarCompiler(known, max_threads=1)
    ready = time.perf_counter()
    grammar = compiler.compile_json_schema(json.dumps(SCHEMA), any_whitespace=False, separators=(",", ":"))
    compiled = time.perf_counter()

    def play(seed: int) -> tuple[float, int]:
        own, bits = xgrammar.GrammarMatcher(grammar), xgrammar.allocate_token_bitmask(1, size)

        def mask() -> np.ndarray:
            own.fill_next_token_bitmask(bits)
            return np.unpackbits(bits.numpy().view(np.uint8)[0], bitorder="little")[:size]

        return walk(mask, own.accept_token, end, seed)

    return play, {"vocabulary_s": ready - began, "compile_s": compiled - ready}


def walk(mask: Callable[[], np.ndarray], accept: Callable[[int], bool], end: int, seed: int) -> tuple[float, int]:
    """Only what the library does is timed, not the choice."""
    rng, seconds = random.Random(seed), 0.0
    for count in range(1, 81):
        began = time.perf_counter()
        allowed = mask()
        seconds += time.perf_counter() - began
        token = int(rng.choice(np.flatnonzero(allowed)))
        if token == end:
            return seconds, count
        began = time.perf_counter()
        accepted = accept(token)
        seconds += time.perf_counter() - began
        if not accepted:
            raise ValueError(f"token {token} was allowed, and is refused")
    return seconds, 80


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    makers = {"llguidance": llguidance_play}
    if importlib.util.find_spec("xgrammar") is not None:
        makers["xgrammar"] = xgrammar_play
    sizes: dict[str, Any] = {}
    for size in SIZES:
        made = {name: maker(Vocabulary(size)) for name, maker in makers.items()}
        microseconds: dict[str, list[float]] = {name: [] for name in made}
        for seed in range(arguments.texts):
            for name in sorted(made, reverse=bool(seed % 2)):
                seconds, tokens = made[name][0](seed)
                microseconds[name].append(1e6 * seconds / tokens)
        sizes[str(size)] = {
            name: {**made[name][1], "median_us_a_token": statistics.median(found), "max_us_a_token": max(found)}
            for name, found in microseconds.items()
        }
    result = {"what": "constrained decoding, cost of a token", "texts": arguments.texts, "vocabulary": sizes}
    report({**result, "machine": machine(threads=1)}, out=arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
