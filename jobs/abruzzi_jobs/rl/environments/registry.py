"""Environments by name and version: the shipped ones, those that installed packages bring (entry points `abruzzi.environments`), and one's own by path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from pydantic import ValidationError

from abruzzi.contracts.errors import AbruzziError
from abruzzi.contracts.graph import nearest
from abruzzi_jobs.rl.environments.gym import Gym

_GYMS = "abruzzi_jobs.rl.environments.gyms"
_ADAPTERS = "abruzzi_jobs.rl.environments.adapters"
SHIPPED = {
    "arithmetic@1": f"{_GYMS}.arithmetic:Arithmetic",
    "coding@1": f"{_GYMS}.coding:Coding",
    "conversation@1": f"{_GYMS}.conversation:Conversation",
    "faithfulness@1": f"{_GYMS}.faithfulness:Faithfulness",
    "gymnasium@1": f"{_ADAPTERS}.gymnasium_text:Gymnasium",
    "instructions@1": f"{_GYMS}.instructions:Instructions",
    "logic@1": f"{_GYMS}.logic:Logic",
    "mathematics@1": f"{_GYMS}.mathematics:Mathematics",
    "openenv@1": f"{_ADAPTERS}.openenv_client:OpenEnv",
    "reasoning@1": f"{_GYMS}.reasoning:Reasoning",
    "safety@1": f"{_GYMS}.safety:Safety",
    "software@1": f"{_GYMS}.software:Software",
    "tools@1": f"{_GYMS}.tools:Tools",
    "verifiers@1": f"{_ADAPTERS}.verifiers_gym:Verifiers",
}
"""reference → module:class. A change of what tasks or rewards are is a new version; the old one stays as long as runs may be resumed with it."""
GROUP = "abruzzi.environments"


def gym(reference: str, options: Mapping[str, Any] | None = None) -> Gym:
    """Of `name@version`, `name` (the newest) or `package.module:Class` (one's own), ready to use.

    Raises AbruzziError `unknown_environment`, `bad_options`, and what the environment lacks on this machine (`missing_package`, `no_sandbox`)."""
    key, _, version = reference.partition("@")
    path = key if ":" in key else _path(key, version)
    found = _class(path, reference)
    if version and version != str(found.version):
        raise AbruzziError("unknown_environment", f"{key} has the version {found.version} here, not {version}.")
    try:
        made = found(options, key=key)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "options"
        raise AbruzziError(
            "bad_options",
            f"environment {reference}: {place}: {first['msg']}.",
            hint=nearest(place, list(found.Options.model_fields)),
        ) from None
    made.refuse_unless_ready()
    return made


def named_gyms() -> dict[str, type[Gym]]:
    """All by reference, in order. (Not `gyms`: loading the subpackage of that name would take its place.)"""
    return {reference: _class(path, reference) for reference, path in sorted(_named().items())}


def _path(name: str, version: str) -> str:
    known = _named()
    versions = sorted(
        int(known_reference.partition("@")[2]) for known_reference in known if known_reference.partition("@")[0] == name
    )
    if not versions:
        names = sorted({known_reference.partition("@")[0] for known_reference in known})
        raise AbruzziError(
            "unknown_environment",
            f"There is no environment {name!r}.",
            hint=f"{nearest(name, names)} One's own are named by path, package.module:Class.",
        )
    wanted = version or str(versions[-1])
    if f"{name}@{wanted}" not in known:
        raise AbruzziError(
            "unknown_environment",
            f"The environment {name!r} has no version {wanted!r}.",
            hint=f"There is {', '.join(f'{name}@{number}' for number in versions)}.",
        )
    return known[f"{name}@{wanted}"]


@cache
def _named() -> dict[str, str]:
    return {**{point.name: point.value for point in entry_points(group=GROUP)}, **SHIPPED}


def _class(path: str, reference: str) -> type[Gym]:
    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise AbruzziError(
            "unknown_environment",
            f"environment {reference!r}: {path} cannot be imported ({error}).",
            hint="Its package has to be installed, or its folder to be on PYTHONPATH.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Gym)):
        raise AbruzziError("unknown_environment", f"environment {reference!r}: {path} is no subclass of Gym.")
    return found
