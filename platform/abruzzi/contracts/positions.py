"""Where each key of a TOML document stands. tomllib gives values without positions; tree-sitter gives positions without values."""

from __future__ import annotations

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

KeyPath = tuple[str | int, ...]
"""Such as ("stage", 1, "model", "hidden_size")."""

_PARSER = Parser(Language(tree_sitter_toml.language()))


def key_positions(text: str) -> dict[KeyPath, tuple[int, int]]:
    """(line, column), from 1, of each key, table and array element of a valid document."""
    return _Positions(_PARSER.parse(text.encode()).root_node).found


class _Positions:
    def __init__(self, root: Node) -> None:
        self.found: dict[KeyPath, tuple[int, int]] = {}
        self.last_index: dict[KeyPath, int] = {}
        """Index of the array of tables' element that is open, by the array's path."""
        self._pairs(root, ())
        for node in root.named_children:
            if node.type in ("table", "table_array_element"):
                self._table(node)

    def _table(self, node: Node) -> None:
        names = _names(node.named_children[0])
        if node.type == "table_array_element":
            array = (*self._through_arrays(names[:-1]), names[-1])
            self.last_index[array] = self.last_index.get(array, -1) + 1
        base = self._through_arrays(names)
        self._place(base, node)
        self._pairs(node, base)

    def _through_arrays(self, names: list[str]) -> KeyPath:
        path: KeyPath = ()
        for name in names:
            path = (*path, name)
            if path in self.last_index:
                path = (*path, self.last_index[path])
        return path

    def _pairs(self, node: Node, base: KeyPath) -> None:
        for child in node.named_children:
            if child.type != "pair":
                continue
            path = (*base, *_names(child.named_children[0]))
            for depth in range(len(base) + 1, len(path) + 1):
                self._place(path[:depth], child)
            self._value(child.named_children[-1], path)

    def _value(self, node: Node, path: KeyPath) -> None:
        if node.type == "inline_table":
            self._pairs(node, path)
        elif node.type == "array":
            for index, child in enumerate(c for c in node.named_children if c.type != "comment"):
                self._place((*path, index), child)
                self._value(child, (*path, index))

    def _place(self, path: KeyPath, node: Node) -> None:
        self.found.setdefault(path, (node.start_point.row + 1, node.start_point.column + 1))


def _names(node: Node) -> list[str]:
    if node.type == "dotted_key":
        return [name for child in node.named_children for name in _names(child)]
    return [(node.text or b"").decode(errors="replace").strip("\"'")]
