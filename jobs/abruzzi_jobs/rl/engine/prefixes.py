"""Pages of the cache: who holds them, and what stands in them, so that sequences which begin alike share what is alike. Pure.

A tree of pages by the tokens in them, of one version of the weights: another version has another tree, so that nothing computed with old weights is ever read with new ones.
Full pages are shared as they are; of a page that only begins alike, the beginning is copied. What nobody runs on stays until its place is needed.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from abruzzi_jobs.models.invariance import BLOCK


@dataclass(eq=False, slots=True)
class _Node:
    tokens: tuple[int, ...]
    page: int
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)
    used: int = 0


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the cache has of a sequence's beginning."""

    pages: tuple[int, ...]
    """Full ones, to be shared."""
    partial: tuple[int, int] | None
    """(page, positions) to be copied from."""

    @property
    def length(self) -> int:
        return len(self.pages) * BLOCK + (self.partial[1] if self.partial else 0)


class Pages:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free = list(range(capacity))
        self._holders = [0] * capacity
        """Sequences that need the page; pages of the tree that none needs have 0."""
        self._used: set[int] = set()
        self._idle: set[int] = set()
        """Of the tree, with 0 holders."""
        self._nodes: dict[int, _Node] = {}
        self._root = _Node((), -1, None)
        self._clock = count(1)

    @property
    def held(self) -> int:
        """Pages that sequences need."""
        return len(self._used) - len(self._idle)

    @property
    def available(self) -> int:
        """Pages that could be taken."""
        return self.capacity - self.held

    @property
    def in_use(self) -> int:
        """One past the last page that holds anything."""
        return 1 + max(self._used, default=-1)

    def take(self) -> int | None:
        """The first free page, or else the one that was longest of no use; None where sequences need them all."""
        if not self._free and not self._give_way():
            return None
        page = heapq.heappop(self._free)
        self._used.add(page)
        self._holders[page] = 1
        return page

    def hold(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._holders[page] += 1
            self._idle.discard(page)

    def release(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._holders[page] -= 1
            if self._holders[page]:
                continue
            if page in self._nodes:
                self._idle.add(page)
            else:
                self._free_page(page)

    def find(self, tokens: Sequence[int], most: int) -> Prefix:
        """The longest known beginning of no more than `most` positions."""
        node, pages, place = self._root, [], 0
        while True:
            best, length = None, 0
            for child in node.children:
                same = common_length(child.tokens, tokens[place : min(place + BLOCK, most)])
                if same > length:
                    best, length = child, same
            if best is None:
                return Prefix(tuple(pages), None)
            best.used = next(self._clock)
            if length < BLOCK:
                return Prefix(tuple(pages), (best.page, length))
            node, place = best, place + BLOCK
            pages.append(best.page)

    def know(self, tokens: Sequence[int], pages: Sequence[int]) -> None:
        """`pages` hold the keys and values of `tokens`."""
        node = self._root
        for place in range(0, len(tokens), BLOCK):
            page, here = pages[place // BLOCK], tuple(tokens[place : place + BLOCK])
            known = self._nodes.get(page)
            if known is not None and known.parent is node:
                known.tokens = max(known.tokens, here, key=len)
                child = known
            else:
                child = next((c for c in node.children if c.tokens[: len(here)] == here), None)
                if child is None and known is None:
                    child = _Node(here, page, node)
                    node.children.append(child)
                    self._nodes[page] = child
            if child is None or len(here) < BLOCK:
                return
            child.used = next(self._clock)
            node = child

    def forget(self) -> None:
        """All that is known: it is of weights that are gone."""
        for page in self._idle:
            self._free_page(page)
        self._idle.clear()
        self._nodes.clear()
        self._root = _Node((), -1, None)

    def trim(self, most: int) -> None:
        """Keeps no more than `most` pages that no sequence needs."""
        while len(self._idle) > most and self._give_way():
            pass

    def _give_way(self) -> bool:
        leaves = [node for node in (self._nodes[page] for page in self._idle) if not node.children]
        if not leaves:
            return False
        node = min(leaves, key=lambda n: n.used)
        assert node.parent is not None
        node.parent.children.remove(node)
        del self._nodes[node.page]
        self._idle.remove(node.page)
        self._free_page(node.page)
        return True

    def _free_page(self, page: int) -> None:
        self._used.remove(page)
        heapq.heappush(self._free, page)


def common_length(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
