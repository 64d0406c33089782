"""report.json as Markdown for people."""

from __future__ import annotations

import re
from typing import Any

TOO_FEW = "too few documents"


def markdown(report: dict[str, Any]) -> str:
    """Tables of the numbers, the comparison in one sentence, and the samples."""
    lines = ["# Evaluation", ""]
    if report["step"] is not None:
        seen = f", {report['tokens']:,} tokens" if report["tokens"] is not None else ""
        lines += [f"Checkpoint of step {report['step']}{seen}.", ""]
    lines += ["## Held-out bits per byte", "", _verdict(report), ""]
    lines += ["| domain | documents | bytes | model | n-gram | better by |", "|---|---:|---:|---:|---:|---:|"]
    for domain, entry in report["held_out"].items():
        cells = [
            _interval(entry[key]) if key in entry else "–"
            for key in ("bits_per_byte", "ngram_bits_per_byte", "better_by")
        ]
        lines.append(f"| {domain} | {entry['documents']} | {entry['bytes']:,} | {' | '.join(cells)} |")
    lines += [
        "",
        f"In brackets 95 % intervals over documents. Each token was scored with at least {report['overlap']} tokens before it "
        f"in a window of {report['window']}, away from a document's start.",
        "",
    ]
    if report["cloze"] is not None:
        lines += _cloze(report["cloze"])
    if report["samples"]:
        lines += ["## Sample text", ""]
        for sample in report["samples"]:
            lines += [f"**{sample['prompt'].strip()}** …", "", *_fenced(sample["prompt"] + sample["text"]), ""]
    return "\n".join(lines)


def _verdict(report: dict[str, Any]) -> str:
    whole = report["held_out"]["all"]
    model = whole["bits_per_byte"]["value"]
    if "ngram_bits_per_byte" not in whole:
        return f"The model needs {model:.3f} bits a byte."
    ngram, gain = whole["ngram_bits_per_byte"]["value"], whole["better_by"]
    name = f"an interpolated Kneser-Ney {report['ngram_order']}-gram byte model of the same training text"
    share = abs(gain["value"]) / ngram
    word = "better" if gain["value"] > 0 else "worse"
    if gain["low"] is None:
        certain = f" ({TOO_FEW}: how certain that is cannot be said)"
    else:
        certain = "" if gain["low"] * gain["high"] > 0 else " (the interval includes 0: no certain difference)"
    return (
        f"The model needs {model:.3f} bits a byte, {name} {ngram:.3f}: {word} by {abs(gain['value']):.3f} bits a byte, "
        f"{share:.1%}{certain}."
    )


def _cloze(cloze: dict[str, Any]) -> list[str]:
    lines = ["## Cloze items", ""]
    lines.append(f"{cloze['items']} items, chance {cloze['chance']:.1%}: {_share(cloze['accuracy'])} correct.")
    lines += ["", *_relations(cloze)]
    answered = cloze.get("answered")
    if answered is not None:
        lines += ["", f"In its own words: {answered['items']} items, {_share(answered['accuracy'])} correct."]
        lines += ["", *_relations(answered), "", "| item | answer | said |", "|---|---|---|"]
        lines += [f"| {_cell(e['id'])} | {_cell(e['answer'])} | {_cell(e['said'])} |" for e in answered["examples"]]
    return [*lines, ""]


def _relations(entries: dict[str, Any]) -> list[str]:
    lines = ["| relation | items | correct |", "|---|---:|---:|"]
    return lines + [f"| {n} | {e['items']} | {_share(e['accuracy'])} |" for n, e in entries["relations"].items()]


def _cell(text: str) -> str:
    """What a model says is shown as it is: no mark-up of its own takes effect."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', chr(92) + '|') or ' '}`"


def _interval(entry: dict[str, Any]) -> str:
    if entry["low"] is None:
        return f"{entry['value']:.3f} [{TOO_FEW}]"
    return f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def _share(entry: dict[str, float]) -> str:
    return f"{entry['value']:.1%} [{entry['low']:.1%}, {entry['high']:.1%}]"


def _fenced(text: str) -> list[str]:
    """A fence longer than any inside, so that no sample breaks out of it."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return [f"{fence}text", text, fence]
