"""What an apiserver does with the fields of an object: selectors, patches, and the ownership of server-side apply."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from abruzzi_operators.kubernetes.errors import Conflict, Invalid
from abruzzi_operators.kubernetes.resources import Object

Path = tuple[str, ...]
LIST_KEYS = {
    "containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort",
    "conditions": "type", "ownerReferences": "uid", "imagePullSecrets": "name",
}  # fmt: skip
"""Lists that are maps in truth, by the field that names an item. All others but finalizers are replaced whole."""
SETS = {"finalizers"}


def matches_labels(selector: str, labels: Mapping[str, str]) -> bool:
    """`a=b,c!=d,e in (f,g),h notin (i),j,!k` as in kubectl."""
    return all(_matches(term.strip(), labels) for term in re.split(r",(?![^(]*\))", selector) if term.strip())


def _matches(term: str, labels: Mapping[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+) +(in|notin) +\(([^)]*)\)", term):
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if found := re.fullmatch(r"(\S+?) *(!=|==|=) *(\S*)", term):
        return (labels.get(found[1]) == found[3]) != (found[2] == "!=")
    if found := re.fullmatch(r"(!?)(\S+)", term):
        return (found[2] in labels) != bool(found[1])
    raise Invalid(f"unable to parse requirement: {term!r}", http_status=400, reason="BadRequest")


def matches_fields(selector: str, thing: Object) -> bool:
    for term in filter(None, selector.split(",")):
        found = re.fullmatch(r"([\w.]+)(!=|==|=)(.*)", term)
        if not found:
            raise Invalid(f"invalid field selector: {term!r}", http_status=400, reason="BadRequest")
        value: Any = thing
        for key in found[1].split("."):
            value = value.get(key, "") if isinstance(value, dict) else ""
        if (value == found[3]) == (found[2] == "!="):
            return False
    return True


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def json_patch(target: Object, operations: Sequence[Mapping[str, Any]]) -> Object:
    """RFC 6902: add, replace, remove and test."""
    document = copy.deepcopy(target)
    for operation in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        where: Any = document
        try:
            for part in parents:
                where = where[int(part)] if isinstance(where, list) else where[part]
            _json_operation(where, last, operation)
        except (KeyError, IndexError, AssertionError) as error:
            raise Invalid(
                f"json patch does not apply: {operation!r} ({error!r})", http_status=422, reason="Invalid"
            ) from error
    return document


def _json_operation(where: Any, last: str, operation: Mapping[str, Any]) -> None:
    key: Any = (len(where) if last == "-" else int(last)) if isinstance(where, list) else last
    match operation["op"]:
        case "add" if isinstance(where, list):
            where.insert(key, operation["value"])
        case "add":
            where[key] = operation["value"]
        case "replace":
            where[key]  # must be there
            where[key] = operation["value"]
        case "remove":
            del where[key]
        case "test":
            assert where[key] == operation["value"], "test"


def leaves(value: Any, path: Path = (), name: str = "") -> Iterator[tuple[Path, Any]]:
    """Every field that somebody can own, with its value. An item of a named list is `[name]` in the path."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, (*path, key), key)
    elif isinstance(value, list) and name in LIST_KEYS and value:
        for item in value:
            yield from leaves(item, (*path, f"[{item.get(LIST_KEYS[name])}]"))
    elif isinstance(value, list) and name in SETS:
        for item in value:
            yield (*path, f"[{item}]"), item
    else:
        yield path, value


def apply_fields(current: Object, wanted: Object, owners: dict[Path, set[str]], manager: str, *, force: bool) -> Object:
    """Server-side apply: the new object; `owners` is brought up to date. Raises Conflict, without effect, for a field of another manager."""
    now = dict(leaves(current))
    applied = dict(leaves(wanted))
    contested = sorted(
        ".".join(path) for path, value in applied.items()
        if path in now and now[path] != value and owners.get(path, set()) - {manager}
    )  # fmt: skip
    if contested and not force:
        raise Conflict(
            f"Apply failed with {len(contested)} conflicts: {', '.join(contested)}", http_status=409, reason="Conflict"
        )
    dropped = [path for path, who in owners.items() if who == {manager} and path not in applied]
    result = _merged(current, wanted, "")
    for path in dropped:
        _remove(result, path)
    for path, who in list(owners.items()):
        who.discard(manager)
        if not who:
            del owners[path]
    for path, value in applied.items():
        if path in now and now[path] != value:
            owners[path] = set()
        owners.setdefault(path, set()).add(manager)
    return result


def _merged(current: Any, wanted: Any, name: str) -> Any:
    if isinstance(wanted, dict) and isinstance(current, dict):
        return {**current, **{key: _merged(current.get(key), value, key) for key, value in wanted.items()}}
    if isinstance(wanted, list) and isinstance(current, list):
        if key := LIST_KEYS.get(name):
            mine = {item.get(key): item for item in current}
            return list(
                {**mine, **{item.get(key): _merged(mine.get(item.get(key)), item, "") for item in wanted}}.values()
            )
        if name in SETS:
            return list(dict.fromkeys([*current, *wanted]))
    return copy.deepcopy(wanted)


def _remove(target: Any, path: Path) -> None:
    """The leaf, and what it leaves empty above it."""
    head, *rest = path
    if isinstance(target, list):
        index = next((i for i, item in enumerate(target) if f"[{item}]" == head or _named(item, head)), None)
        if index is None:
            return
        if rest:
            _remove(target[index], tuple(rest))
        if not rest or not target[index] or set(target[index]) <= set(LIST_KEYS.values()):
            del target[index]
    elif isinstance(target, dict) and head in target:
        if rest:
            _remove(target[head], tuple(rest))
        if not rest or target[head] in ({}, []):
            del target[head]


def _named(item: Any, head: str) -> bool:
    return isinstance(item, dict) and any(
        f"[{item.get(key)}]" == head for key in set(LIST_KEYS.values()) if key in item
    )
