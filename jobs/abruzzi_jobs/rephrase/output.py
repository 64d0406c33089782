"""The corpus that a rephrase stage makes: training shards anew, held-out shards and questions of the source corpus byte for byte, the rows `rewrites`."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.rephrase import RephraseConfig
from abruzzi_jobs.chat.provenance import require_teacher
from abruzzi_jobs.data.corpus import CLOZE_FILE
from abruzzi_jobs.data.distributions import Distributions
from abruzzi_jobs.data.documents import clean, document_id, fingerprint
from abruzzi_jobs.data.processing.shard import KEPT
from abruzzi_jobs.data.row_shards import RowShardWriter
from abruzzi_jobs.data.text_shards import CORPUS_FILE, TextRecord, TextShardWriter, read_corpus
from abruzzi_jobs.rephrase.decontaminate import Decontamination
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.shape import shape
from abruzzi_jobs.rephrase.grid import Grid
from abruzzi_jobs.rephrase.plan import Planned
from abruzzi_jobs.rephrase.rewriting import Rewrite

NOUN = "rewrites"
UNASKED = "unasked"
"""Documents that a budget was not enough for."""
TOO_FEW_TO_JUDGE = 20
_REMEDIES = {
    FaultKind.TRUNCATED: "Answers are cut: raise max_tokens of the role rephraser, or make rephrase.part_tokens smaller.",
    FaultKind.COPY: "The model hardly rewrites: give it a higher temperature, or lower rephrase.fidelity.min_novelty.",
    FaultKind.NO_ANSWER: "The endpoint rejects questions: `abruzzi endpoints check RECIPE` asks it one.",
    FaultKind.CONTAMINATED: "Rewrites repeat evaluation items: is the source corpus decontaminated?",
}


class RephrasedCorpus:
    """Takes the documents in their order; `close` writes what describes them."""

    def __init__(self, source: Path, out: Path, config: RephraseConfig, grid: Grid) -> None:
        self._source, self._out, self._config, self._grid = source, out, config, grid
        self._described = read_corpus(source)
        self._licences = {s["name"]: s.get("licence", "") for s in self._described.get("sources", ())}
        self._train = TextShardWriter(out, "train")
        self._rows = RowShardWriter(out, NOUN)
        self._foreign = Decontamination(config, source)
        self._ids: set[str] = set()
        self._domains: dict[str, Counter[str]] = defaultdict(Counter)
        self._distributions = Distributions()
        self._examples: dict[str, str] = {}
        self.documents: Counter[str] = Counter()
        """rewritten (one kept at least), rejected, untouched, unasked, raw (of them all, those that stay as they are)."""

    @property
    def fates(self) -> Counter[str]:
        """Of the rewrites so far."""
        return self._rows.fates

    def add(self, plan: Planned, rewrites: list[Rewrite]) -> None:
        """Raises AbruzziError too_many_rejected."""
        kept = [r for r in rewrites if self._row(plan, r) == KEPT]
        if not plan.cells:
            self.documents["untouched"] += 1
        else:
            self.documents["rewritten" if kept else "rejected"] += 1
        if not plan.cells or self._config.keep_raw == "all" or (self._config.keep_raw == "rejected" and not kept):
            self.documents["raw"] += 1
            self._write(plan.record)
        for done in kept:
            name = "/".join(part for part in (plan.record.name, done.cell.style, done.cell.perspective) if part)
            self._write(
                TextRecord(
                    id=_id(done.text), text=done.text, source=plan.record.source, domain=plan.record.domain, name=name
                )
            )
        self._refuse_too_many_rejected(at_least=TOO_FEW_TO_JUDGE)

    def leave(self, plan: Planned) -> None:
        """Of a document that nobody was asked about."""
        self.documents[UNASKED] += 1
        if self._config.keep_raw in ("all", "rejected"):
            self.documents["raw"] += 1
            self._write(plan.record)

    def close(self, *, budget: str | None = None) -> dict[str, Any]:
        """Returns what corpus.json says. `budget`: which was used up before all was done. Raises AbruzziError where too many were rejected or nothing is left to train on."""
        self._refuse_too_many_rejected(at_least=1)
        shards = self._train.close()
        if not shards:
            raise AbruzziError(
                "bad_data",
                f"rephrase.keep_raw: no training text is left; what became of the rewrites: {_told(self.fates)}.",
                hint='Set rephrase.keep_raw = "rejected".',
            )
        held = [s for s in self._described["shards"] if s["split"] != "train"]
        questions = [CLOZE_FILE] if (self._source / CLOZE_FILE).exists() else []
        for name in [*(s["name"] for s in held), *questions]:  # not rows and calls of a stage that rephrased it before
            shutil.copyfile(self._source / name, self._out / name)
        rows = self._rows.close(
            prompt_version=self._grid.version,
            config=self._config.model_dump(mode="json"),
            documents=dict(sorted(self.documents.items())),
        )
        self._refuse_other_teacher(rows["teacher"])
        corpus = {
            **self._described,
            "domains": self._domains_now(),
            "distributions": self._distributions.as_dict(),
            "shards": [*shards, *held],
            "train_bytes": sum(s["text_bytes"] for s in shards),
            "train_documents": sum(s["documents"] for s in shards),
            "rephrase": {
                "prompt_version": self._grid.version,
                "teacher": rows["teacher"],
                "rewrites": rows["fates"],
                "documents": dict(sorted(self.documents.items())),
                "source_train_bytes": self._described.get("train_bytes"),
                "evaluation_sets": self._foreign.described,
                **({"budget": budget} if budget else {}),
            },
        }
        content = json.dumps(corpus, indent=1, ensure_ascii=False) + "\n"
        (self._out / CORPUS_FILE).write_text(content, encoding="utf-8")
        return corpus

    def _row(self, plan: Planned, done: Rewrite) -> str:
        """Writes the row, and returns its fate."""
        record, faults = plan.record, list(done.faults)
        if not faults:
            faults = self._late_faults(record, done)
        fate = faults[0].kind.value if faults else KEPT
        last = next((p for p in reversed(done.parts) if p.generator), None)
        _, scores = shape(record.text[: done.parts[-1].part.end], done.text, self._config.fidelity)
        self._rows.write(
            {
                "id": "-".join(
                    p for p in (record.id, done.cell.style, done.cell.perspective, str(done.cell.sample)) if p
                ),
                "fate": fate,
                "source": record.source,
                "licence": self._licences.get(record.source, ""),
                "generator": last.generator if last else "",
                "is_llm": last.is_llm if last else False,
                "document": record.id,
                "domain": record.domain,
                "name": record.name,
                "language": plan.language,
                "style": done.cell.style,
                "perspective": done.cell.perspective,
                "prompt_version": self._grid.version,
                "source_text": record.text,
                "text": done.text,
                "chunks": [{"source": p.source, "text": p.text, "tries": p.tries} for p in done.parts],
                "faults": [fault.as_dict() for fault in faults],
                "scores": scores,
                "call_ids": done.call_ids,
            }
        )
        if fate == KEPT:
            self._ids.add(_id(done.text))
        else:
            self._examples.setdefault(fate, f"{record.name or record.id}: {faults[0].detail}")
        return fate

    def _late_faults(self, record: TextRecord, done: Rewrite) -> list[Fault]:
        """Of a rewrite that says what its source says: whether it may stand in a corpus."""
        found = self._foreign.found_in(done.text)
        if found is not None:
            return [Fault(FaultKind.CONTAMINATED, "decontamination", f"shares a run of words with {found}")]
        if _id(done.text) in self._ids or _id(done.text) == record.id:
            return [Fault(FaultKind.COPY, "rules", "the same text is in the corpus already")]
        return []

    def _write(self, record: TextRecord) -> None:
        self._ids.add(record.id)
        self._train.write(record)
        self._distributions.add(record.domain, record.text)
        counts = self._domains[record.domain]
        counts["train_documents"] += 1
        counts["train_bytes"] += len(record.text.encode("utf-8", "replace"))

    def _domains_now(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for name in sorted({*self._domains, *self._described.get("domains", {})}):
            held = self._described.get("domains", {}).get(name, {})
            others = {key: value for key, value in held.items() if not key.startswith("train_")}
            found[name] = dict(sorted({**others, **self._domains[name]}.items()))
        return found

    def _refuse_too_many_rejected(self, *, at_least: int) -> None:
        total = self.fates.total()
        rejected = total - self.fates[KEPT]
        if total < at_least or rejected <= self._config.max_rejected * total:
            return
        worst = max((fate for fate in self.fates if fate != KEPT), key=lambda fate: (self.fates[fate], fate))
        advice = _REMEDIES.get(FaultKind(worst), "Use a stronger model, or other thresholds in rephrase.fidelity.")
        raise AbruzziError(
            "too_many_rejected",
            f"{rejected} of {total} rewrites were rejected, more than rephrase.max_rejected = {self._config.max_rejected:g} allows: "
            f"{_told(self.fates)}. The first {worst}: {self._examples[worst]}.",
            hint=f"{advice} `max_rejected = 1.0` lets the stage go on; answers are not asked for twice.",
        )

    def _refuse_other_teacher(self, teacher: Any) -> None:
        earlier = self._described.get("rephrase", {}).get("teacher")
        if earlier is not None and teacher is not None and teacher != earlier:
            require_teacher(
                earlier, is_llm=teacher == "llm", generator=str(teacher), where="the corpus that is rewritten"
            )


def _id(text: str) -> str:
    return document_id(fingerprint(clean(text)))


def _told(fates: Counter[str]) -> str:
    return ", ".join(f"{fate} {number}" for fate, number in sorted(fates.items(), key=lambda f: (-f[1], f[0])))
