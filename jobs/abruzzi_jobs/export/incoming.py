"""What `abruzzi checkpoints` does: say what a published folder is, and bring it into our layout."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from safetensors.torch import save_file

from abruzzi.contracts import training
from abruzzi.contracts.errors import AbruzziError
from abruzzi.plan.parameters import count_parameters
from abruzzi_jobs.checkpoint.state import STATE_FILE
from abruzzi_jobs.checkpoint.tensor_file import WEIGHTS_FILE
from abruzzi_jobs.export.huggingface import TOKENIZER_FILES, import_huggingface
from abruzzi_jobs.export.published import FolderReport
from abruzzi_jobs.models.config import ModelConfig


def say_report(folder: Path, report: FolderReport, *, as_json: bool) -> None:
    """To standard output."""
    facts = _facts(report)
    if as_json:
        sys.stdout.write(
            json.dumps({"folder": str(folder), **facts, "model": report.config.to_dict()}, indent=1) + "\n"
        )
        return
    console = Console(highlight=False)
    mixture = f", {facts['active_parameters'] / 1e9:,.2f}B of them active" if "active_parameters" in facts else ""
    console.print(f"[bold]{escape(str(folder))}[/]  {facts['architecture']}, {report.config.num_layers} layers")
    console.print(
        f"  {report.parameters / 1e9:,.2f}B parameters{mixture}; {report.tensors:,} tensors in {len(report.files)} files"
    )
    if report.quantised:
        console.print(f"  {report.quantised:,} weights in FP8, a scale for each block of 128×128; read as bfloat16")
    if report.promised_bytes is not None:
        console.print(
            f"  {decimal(report.promised_bytes)} by its index, {decimal(report.expected_bytes)} by its configuration"
        )
    if report.missing_files:
        console.print(
            f"  [yellow]{len(report.missing_files)} of its files are not here:[/] {escape(report.missing_files[0])} …"
        )
    for fault in report.faults:
        console.print(f"  [red]✗[/] {escape(fault)}")
    if report.complete:
        console.print("  [green]✓[/] whole; `abruzzi checkpoints import` brings it in")
    elif not report.faults:
        console.print("  [green]✓[/] names and shapes are a model of ours; its weights are not all here")


def import_folder(folder: Path, to: Path) -> Iterator[tuple[Path, int]]:
    """Files written with their sizes. Raises AbruzziError bad_data where it is no model of ours, `exists` where OUT is not empty."""
    if to.exists() and any(to.iterdir()):
        raise AbruzziError("exists", f"{to} is not empty.", hint="Name a new folder.", status=409)
    try:
        config, state = import_huggingface(folder)
    except (OSError, ValueError, KeyError) as error:
        raise AbruzziError(
            "bad_data",
            f"{folder}: no model can be read from it ({error}).",
            hint=f"`abruzzi checkpoints inspect {folder}` says what it is.",
        ) from error
    to.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, to / WEIGHTS_FILE)
    table = {"base": folder.resolve().name, "config": {"model": config.to_dict()}}
    (to / STATE_FILE).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, to / name)
    for path in sorted(to.iterdir()):
        yield path, path.stat().st_size


def _facts(report: FolderReport) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "architecture": "DeepseekV3" if isinstance(report.config, ModelConfig) else "Llama",
        "parameters": report.parameters,
        "tensors": report.tensors,
        "quantised": report.quantised,
        "files": len(report.files),
        "missing_files": list(report.missing_files),
        "promised_bytes": report.promised_bytes,
        "expected_bytes": report.expected_bytes,
        "faults": list(report.faults),
        "complete": report.complete,
    }
    if isinstance(report.config, ModelConfig):
        facts["active_parameters"] = count_parameters(training.ModelConfig(**report.config.to_dict())).active
    return facts
