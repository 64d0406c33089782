"""Code and documentation of installed Python packages, read from their files; nothing is imported or run.

Docstrings and code never overlap where both are taken from one package: a source of code keeps a docstring's first line only.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import inspect
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from abruzzi_jobs.data.documents import Document

MAX_FILE_BYTES = 256 << 10
"""Longer Python files are tables."""
_SKIPPED_FOLDERS = frozenset(
    {
        "test", "tests", "testing", "idle_test", "benchmarks", "site-packages", "dist-packages", "__pycache__", "_vendor", "_bundled",
        "encodings", "pydoc_data", "lib-dynload", "__phello__",
    }
)  # fmt: skip
DOCUMENTED_PACKAGES = (
    "numpy", "networkx", "torch.nn", "torch.optim", "torch.distributions", "torch.utils", "torch.distributed",
    "pydantic", "fsspec", "jinja2", "click", "httpx", "pyarrow", "mendeleev",
)  # fmt: skip
"""A fixed list, so that what else is installed changes nothing."""
DESCRIBED_DISTRIBUTIONS = (
    "numpy", "networkx", "torch", "sympy", "mpmath", "pydantic", "fsspec", "jinja2", "click", "httpx", "pyarrow", "mendeleev",
    "pycountry", "pythonbible", "tokenizers", "safetensors", "zstandard", "anyio", "certifi", "h11", "idna", "typing-extensions",
    "minio", "urllib3", "filelock", "setuptools", "rich", "typer",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Docstring:
    qualified_name: str
    text: str
    start: int
    """Offset of its literal in the file's UTF-8 bytes."""
    stop: int


def standard_library() -> Iterator[Document]:
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in _modules(root):
        # Build settings hold this machine's paths; config-* and lib2to3's pickled grammars hold no code to learn from.
        if path.name.startswith("_sysconfigdata") or path.relative_to(root).parts[0].startswith("config-"):
            continue
        yield Document(name=path.relative_to(root).as_posix(), text=_text(path), domain="code")


def package_code(package: str) -> Iterator[Document]:
    """Modules without tests, docstrings cut to their first line."""
    root = _root(package)
    for path in _modules(root):
        source = path.read_bytes()
        pieces, done = [], 0
        for docstring in docstrings(path):
            pieces.append(source[done : docstring.start])
            first_line = docstring.text.strip().partition("\n")[0].replace("\\", "/").replace('"', "'")
            pieces.append(f'"""{first_line}"""'.encode())
            done = docstring.stop
        text = b"".join([*pieces, source[done:]]).decode("utf-8", "replace")
        yield Document(name=f"{package}/{path.relative_to(root).as_posix()}", text=text, domain="code")


def package_docstrings(packages: tuple[str, ...], *, domain: str) -> Iterator[Document]:
    """One document a module: each docstring under the name of what it describes. Packages that are not there are passed over."""
    for package in packages:
        root = _find_root(package)
        if root is None:
            continue
        for path in _modules(root):
            parts = [f"{d.qualified_name}\n\n{inspect.cleandoc(d.text)}" for d in docstrings(path) if d.text.strip()]
            if parts:
                name = ".".join([package, *path.relative_to(root).with_suffix("").parts]).removesuffix(".__init__")
                yield Document(name=name, text="\n\n\n".join([name, *parts]), domain=domain)


def descriptions(distributions: tuple[str, ...]) -> Iterator[Document]:
    """What packages say of themselves: the long description in their metadata."""
    for name in distributions:
        try:
            text = str(importlib.metadata.metadata(name).json.get("description", ""))
        except importlib.metadata.PackageNotFoundError:
            continue
        if text.strip():
            yield Document(name=f"{name} (description)", text=f"{name}\n\n{text.strip()}", domain="web")


def language_topics() -> Iterator[Document]:
    """The Python language reference as `help()` shows it."""
    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    if not path.is_file():
        return
    tables = [n.value for n in _parse(path).body if isinstance(n, ast.Assign) and isinstance(n.value, ast.Dict)]
    for table in tables:
        for name, text in sorted(ast.literal_eval(table).items()):
            yield Document(name=f"topics/{name}", text=str(text), domain="web")


@functools.lru_cache(maxsize=4096)
def docstrings(path: Path) -> tuple[Docstring, ...]:
    """In the order of the file. A file that this Python cannot parse has none."""
    try:
        tree = _parse(path)
    except (SyntaxError, ValueError):
        return ()
    starts = [0]
    for line in path.read_bytes().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: list[Docstring] = []
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        prefix, node = stack.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                stack.append((f"{prefix}{child.name}.", child))
            elif isinstance(child, ast.If | ast.Try | ast.With):
                stack.append((prefix, child))
        literal = _docstring_node(node)
        if literal is not None and literal.end_lineno is not None and literal.end_col_offset is not None:
            found.append(
                Docstring(
                    qualified_name=prefix.rstrip(".") or path.stem,
                    text=str(literal.value),
                    start=starts[literal.lineno - 1] + literal.col_offset,
                    stop=starts[literal.end_lineno - 1] + literal.end_col_offset,
                )
            )
    return tuple(sorted(found, key=lambda d: d.start))


def _docstring_node(node: ast.AST) -> ast.Constant | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            return first.value
    return None


def _parse(path: Path) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's invalid escapes
        return ast.parse(path.read_bytes())


def _modules(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        folders = path.relative_to(root).parts[:-1]
        if _SKIPPED_FOLDERS.isdisjoint(folders) and path.is_file() and 0 < path.stat().st_size <= MAX_FILE_BYTES:
            yield path


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _root(package: str) -> Path:
    root = _find_root(package)
    if root is None:
        raise ModuleNotFoundError(package)
    return root


def _find_root(package: str) -> Path | None:
    """The folder of a package, found without importing it (nor its parents)."""
    top, *rest = package.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or not spec.origin:
        return None
    folder = Path(spec.origin).parent.joinpath(*rest)
    return folder if folder.is_dir() else None
