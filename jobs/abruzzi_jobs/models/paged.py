"""Decoding against a cache in pages: each position of a sequence is stored once, pages may belong to several sequences, nothing is padded to a longest one.

A page holds `BLOCK` positions of one layer's keys and values. Where nearly all pages are in use they are multiplied in place, without being gathered: one product
with the query of each page's reader; readers that share a page stand side by side in its product. Sums over a sequence's pages go in their
order, so that the result is that of `ragged.py`, bit for bit.

Shapes: T rows, S tiles (consecutive rows of one sequence, R each), G key heads, Q query heads of each, M = R · Q (and what fills up) rows of a product, D key dims, E value
dims, L = BLOCK keys, P pages, X readers beside each other, N = P · X products of a tile with a page, J pages of a tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from abruzzi_jobs.memory import widened
from abruzzi_jobs.models.attention import LOG2_E
from abruzzi_jobs.models.decoder import CacheDims
from abruzzi_jobs.models.invariance import BLOCK, GROUP, exp2_rows_, multiple


class LayerPages:
    """Keys [pages, G, BLOCK, D] and values [pages, G, BLOCK, E]; values may be the first dims of the keys (a latent cache)."""

    def __init__(self, pages: int, dims: CacheDims, *, device: torch.device, dtype: torch.dtype) -> None:
        self._own_values, self._heads = dims.own_values, dims.heads
        shape = (pages, dims.heads, BLOCK)
        self.keys = torch.zeros(*shape, dims.key_dim, device=device, dtype=dtype)
        self.values = (
            torch.zeros(*shape, dims.value_dim, device=device, dtype=dtype)
            if dims.own_values
            else self.keys[..., : dims.value_dim]
        )

    def places(self, slots_T: Tensor) -> Tensor:
        """For `write`, the same in all layers [T · G]. `slots_T`: page · BLOCK + place in it."""
        if self._heads == 1:
            return slots_T
        head_G = torch.arange(self._heads, device=slots_T.device) * BLOCK
        first_T1 = (slots_T // BLOCK * (self._heads * BLOCK) + slots_T % BLOCK).unsqueeze(1)
        return (first_T1 + head_G).flatten()

    def write(self, places: Tensor, k_TGD: Tensor, v_TGE: Tensor) -> None:
        self.keys.flatten(0, 2).index_copy_(0, places, k_TGD.flatten(0, 1))
        if self._own_values:
            self.values.flatten(0, 2).index_copy_(0, places, v_TGE.flatten(0, 1))

    def copy(self, sources: Tensor, targets: Tensor) -> None:
        self.keys.index_copy_(0, targets, self.keys.index_select(0, sources))
        if self._own_values:
            self.values.index_copy_(0, targets, self.values.index_select(0, sources))

    @property
    def size_bytes(self) -> int:
        return self.keys.nbytes + (self.values.nbytes if self._own_values else 0)


@dataclass(frozen=True, slots=True)
class Products:
    """Pages with their readers."""

    pages: slice | Tensor
    beside: int
    """X"""
    reader_N: Tensor
    """Tiles; the number of tiles stands for none."""
    hidden_N1ML: Tensor
    """Keys that come after the row."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Some rows of a step, and what they read. Made once for all layers."""

    rows: slice
    tile_rows: int
    products: tuple[Products, ...]
    table_SJ: Tensor
    """Of each tile, its products in the order of its pages; one past the last stands for none."""

    @property
    def are_of_one_page(self) -> bool:
        """Each, and no page is another's, too."""
        return self.table_SJ.shape[1] == len(self.products) == self.products[0].beside == 1


def plan_tiles(
    rows: slice,
    spans: Sequence[tuple[int, int]],
    pages: Sequence[Sequence[int]],
    *,
    tile_rows: int,
    queries: int,
    in_use: int,
    device: torch.device,
) -> Tiles:
    """Tiles of the rows with positions `spans` (first, last), which read `pages`: those of their sequence, from position 0 on, of a cache whose first `in_use` may hold something.

    Rows that fill up a tile are its last one again; tiles that fill up `rows` are the first one again.
    """
    position_SM = _row_positions(spans, tile_rows, queries, device)
    of_rows = (rows.stop - rows.start) // tile_rows
    reading, table_SJ = _reading(tuple(map(tuple, pages)), of_rows, tile_rows == 1, in_use, str(device))
    products = tuple(Products(each.pages, each.beside, each.reader_N, _later(each, position_SM)) for each in reading)
    return Tiles(rows, tile_rows, products, table_SJ)


@dataclass(frozen=True, slots=True)
class _Reading:
    """`Products` but for the rows' positions."""

    pages: slice | Tensor
    beside: int
    reader_N: Tensor
    key_N1L: Tensor
    """Positions of the keys."""


@lru_cache(maxsize=8)
def _reading(
    pages: tuple[tuple[int, ...], ...], of_rows: int, may_be_dense: bool, in_use: int, device: str
) -> tuple[tuple[_Reading, ...], Tensor]:
    """(products, `Tiles.table_SJ`): who reads what. From one token to the next it is mostly the same."""
    tiles = len(pages)
    readers: dict[int, list[tuple[int, int]]] = {}
    for tile, own in enumerate(pages):
        for place, page in enumerate(own):
            readers.setdefault(page, []).append((tile, place))
    # A page's first reader is served where the page lies, its others beside each other.
    dense = may_be_dense and 2 * len(readers) >= in_use
    order = list(range(in_use)) if dense else sorted(readers)
    nobody = (tiles, 0)
    first = [readers.get(page, [nobody])[:1] for page in order]
    shared = sorted(page for page, them in readers.items() if len(them) > 1)
    width = max((len(readers[page]) - 1 for page in shared), default=0)
    others = [readers[page][1:] + [nobody] * (width + 1 - len(readers[page])) for page in shared]
    numbers = {reader: n for n, reader in enumerate(reader for beside in (*first, *others) for reader in beside)}
    products = [_read_by(slice(0, in_use) if dense else torch.tensor(order, device=device), first, device)]
    if shared:
        products.append(_read_by(torch.tensor(shared, device=device), others, device))
    none = len(order) + len(shared) * width
    longest = max(map(len, pages))
    table = [
        [numbers[tile, place] for place in range(len(own))] + [none] * (longest - len(own))
        for tile, own in enumerate(pages)
    ]
    table += [table[0]] * (of_rows - tiles)
    return tuple(products), torch.tensor(table, device=device)


def forget_plans() -> None:
    """Gives back the memory, on the device too, of what is kept from one step to the next; it is made again when it is asked for."""
    _reading.cache_clear()


def _row_positions(spans: Sequence[tuple[int, int]], tile_rows: int, queries: int, device: torch.device) -> Tensor:
    """[S + 1, M], the last for a tile that is nobody's."""
    first_S1, last_S1 = torch.tensor([*spans, (0, 0)], device=device).unsqueeze(-1).unbind(1)
    position_SR = torch.minimum(first_S1 + torch.arange(tile_rows, device=device), last_S1)
    filled = multiple(tile_rows * queries, GROUP) - tile_rows * queries
    return F.pad(position_SR.repeat_interleave(queries, 1), (0, filled))


def _read_by(pages: slice | Tensor, readers: Sequence[Sequence[tuple[int, int]]], device: str) -> _Reading:
    each = [reader for beside in readers for reader in beside]
    first_N = torch.tensor([place * BLOCK for _, place in each], device=device)
    key_NL = first_N.unsqueeze(1) + torch.arange(BLOCK, device=device)
    reader_N = torch.tensor([tile for tile, _ in each], device=device)
    return _Reading(pages, len(readers[0]), reader_N, key_NL.unsqueeze(1))


def _later(reading: _Reading, position_SM: Tensor) -> Tensor:
    position_NM1 = position_SM.index_select(0, reading.reader_N).unsqueeze(2)
    return (reading.key_N1L > position_NM1).unsqueeze(1)


def paged_attention(q_TGQD: Tensor, cache: LayerPages, tiles: Tiles, scale: float) -> Tensor:
    """out_TGQE of the tiles' rows, whose own keys and values stand in the cache already."""
    dtype, q_TGQD = q_TGQD.dtype, widened(q_TGQD[tiles.rows])
    R, (T, G, Q, D) = tiles.tile_rows, q_TGQD.shape
    S, M = T // R, multiple(R * Q, GROUP)
    q_SGMD = q_TGQD.new_zeros(S + 1, G, M, D)  # one more tile, nobody's
    own_SRGQD = q_SGMD[:S, :, : R * Q].unflatten(2, (R, Q)).transpose(1, 2)
    torch.mul(q_TGQD.view(S, R, G, Q, D), scale * LOG2_E, out=own_SRGQD)
    attended = _of_one_page if tiles.are_of_one_page else _of_pages
    out_SGME = attended(q_SGMD, cache, tiles)[:, :, : R * Q]
    if R > 1:
        out_SGME = out_SGME.unflatten(2, (R, Q)).transpose(1, 2).reshape(T, G, Q, -1)
    return out_SGME.to(dtype)


def _of_one_page(q_SGMD: Tensor, cache: LayerPages, tiles: Tiles) -> Tensor:
    """`_of_pages` where nothing is to be added: short sequences, of which there are many."""
    (products,) = tiles.products
    logits_NGML = _logits(q_SGMD, cache, products)
    p_NGML = exp2_rows_(logits_NGML.sub_(logits_NGML.amax(-1, keepdim=True)))
    out_NGME = _weighted(p_NGML, cache, products).div_(p_NGML.sum(-1, keepdim=True))
    return out_NGME.index_select(0, tiles.table_SJ[:, 0])


def _of_pages(q_SGMD: Tensor, cache: LayerPages, tiles: Tiles) -> Tensor:
    """out_SGME"""
    logits = [_logits(q_SGMD, cache, products) for products in tiles.products]
    max_NGM = torch.cat([*(x.amax(-1) for x in logits), logits[0].new_full((1, *q_SGMD.shape[1:3]), -torch.inf)])
    max_SGM = F.pad(max_NGM[tiles.table_SJ].amax(1), (0, 0, 0, 0, 0, 1))
    outs, sums = [], []
    for logits_NGML, products in zip(logits, tiles.products, strict=True):
        max_NGM1 = max_SGM.index_select(0, products.reader_N).unsqueeze(-1)
        p_NGML = exp2_rows_(logits_NGML.sub_(max_NGM1))
        outs.append(_weighted(p_NGML, cache, products))
        sums.append(p_NGML.sum(-1))
    out_NGME = torch.cat([*outs, outs[0].new_zeros(1, *outs[0].shape[1:])])
    sum_NGM = torch.cat([*sums, sums[0].new_zeros(1, *sums[0].shape[1:])])
    number_JS = tiles.table_SJ.t().contiguous()
    out_SGME, total_SGM = out_NGME.index_select(0, number_JS[0]), sum_NGM.index_select(0, number_JS[0])
    for number_S in number_JS[1:]:
        out_SGME += out_NGME.index_select(0, number_S)
        total_SGM += sum_NGM.index_select(0, number_S)
    return out_SGME.div_(total_SGM.unsqueeze(-1))


def _pages(x: Tensor, products: Products) -> Tensor:
    """[P · G, BLOCK, X]; in place where they are a slice."""
    picked = x[products.pages] if isinstance(products.pages, slice) else x.index_select(0, products.pages)
    return widened(picked.flatten(0, 1))


def _logits(q_SGMD: Tensor, cache: LayerPages, products: Products) -> Tensor:
    """[P · X, G, M, BLOCK]; −inf where a key comes after the row."""
    X = products.beside
    picked_NGMD = q_SGMD.index_select(0, products.reader_N)
    _, G, M, D = picked_NGMD.shape
    q_NMD = picked_NGMD.flatten(0, 1)
    if X > 1:
        q_NMD = picked_NGMD.view(-1, X, G, M, D).transpose(1, 2).reshape(-1, X * M, D)
    logits_NML = torch.bmm(q_NMD, _pages(cache.keys, products).transpose(1, 2))
    if X > 1:
        logits_NML = logits_NML.view(-1, G, X, M, BLOCK).transpose(1, 2).contiguous()
    return logits_NML.view(-1, G, M, BLOCK).masked_fill_(products.hidden_N1ML, -torch.inf)


def _weighted(p_NGML: Tensor, cache: LayerPages, products: Products) -> Tensor:
    """p·v of each product [P · X, G, M, E]."""
    X = products.beside
    _, G, M, L = p_NGML.shape
    p_NML = p_NGML.flatten(0, 1)
    if X > 1:
        p_NML = p_NGML.view(-1, X, G, M, L).transpose(1, 2).reshape(-1, X * M, L)
    out_NME = torch.bmm(p_NML, _pages(cache.values, products))
    if X > 1:
        out_NME = out_NME.view(out_NME.shape[0] // G, G, X, M, -1).transpose(1, 2).contiguous()
    return out_NME.view(len(p_NGML), G, M, -1)
