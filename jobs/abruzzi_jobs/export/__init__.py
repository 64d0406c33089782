"""Checkpoints in other projects' formats."""

from abruzzi_jobs.export.huggingface import export_huggingface, import_huggingface, inspect_huggingface

__all__ = ["export_huggingface", "import_huggingface", "inspect_huggingface"]
