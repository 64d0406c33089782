"""The rules of one rewritten part, from its numbers to what it leaves out. Pure and cheap; each fault says where."""

from __future__ import annotations

from collections.abc import Iterator

from abruzzi.contracts.rephrase import FidelityConfig
from abruzzi_jobs.rephrase.fidelity import polarity
from abruzzi_jobs.rephrase.fidelity.claim_rules import claim_faults, omission_faults
from abruzzi_jobs.rephrase.fidelity.comparison import Comparison
from abruzzi_jobs.rephrase.fidelity.entity_rules import entity_faults
from abruzzi_jobs.rephrase.fidelity.fault import Fault, FaultKind
from abruzzi_jobs.rephrase.fidelity.number_rules import number_faults

LAYER = "rules"


def rules(source: str, text: str, *, context: str, config: FidelityConfig) -> list[Fault]:
    """Of a part against its source, in the order numbers, entities, negations, claims, omissions. `context`: the whole document."""
    pair = Comparison(source, text, context, config)
    return [
        *number_faults(pair),
        *entity_faults(pair),
        *_negations(pair),
        *claim_faults(pair),
        *omission_faults(pair),
    ]


def _negations(pair: Comparison) -> Iterator[Fault]:
    """Sentences that tell each other deny equally often; a denial may take the form of another word."""
    for source_numbers, rewrite_numbers in pair.groups:
        sources = [pair.source.sentences[n] for n in source_numbers]
        rewrites = [pair.rewrite.sentences[n] for n in rewrite_numbers]
        theirs, ours = ([w for s in side for w in polarity.denials(s)] for side in (sources, rewrites))
        soft = sum(map(polarity.soft_denials, rewrites)) - sum(map(polarity.soft_denials, sources))
        more = len(ours) - len(theirs)
        if more > max(0, -soft):
            word = ours[-1]
            yield Fault(FaultKind.NEGATION, LAYER, f"{word.text!r} is new here", sources[0].span, word.span)
        elif -more > max(0, soft):
            word = theirs[0]
            yield Fault(FaultKind.NEGATION, LAYER, f"{word.text!r} of the source is lost", word.span, rewrites[0].span)
    for told in pair.told:
        sources = [pair.source.sentences[s] for s in told.sources]
        for word, opposite in polarity.turned(sources, told.sentence):
            detail = f"{word.text!r} stands where the source has {opposite!r}"
            yield Fault(FaultKind.NEGATION, LAYER, detail, pair.told_span(told), word.span)
