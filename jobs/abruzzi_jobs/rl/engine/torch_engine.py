"""The embedded engine: our own models, on the trainer's kernels.

Continuous batching: a step takes one more token of each running sequence, and some of the prompts that wait, as flat rows without padding
(`models/rows.py`); keys and values lie in pages that sequences share where they begin alike (`prefixes.py`). A token's numbers and its draw do not depend on what
runs beside it, so pausing, resuming and recomputing change nothing, bit for bit.

Shapes: T rows, S sequences, V vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from abruzzi.contracts.rollout import Ending, Segment, TokenSource
from abruzzi_jobs.models import Decoder
from abruzzi_jobs.models.invariance import BLOCK, ROWS, multiple
from abruzzi_jobs.models.paged import LayerPages, Tiles, forget_plans, plan_tiles
from abruzzi_jobs.models.rows import head_logits, new_pages, paged_forward, ragged_forward
from abruzzi_jobs.rl.engine.drawing import chosen, draw
from abruzzi_jobs.rl.engine.prefixes import Pages, common_length
from abruzzi_jobs.rl.engine.protocol import Drawn, EngineStats, Generated, Request
from abruzzi_jobs.rl.engine.shadow import Weights

TILE_ROWS = 16
"""Of a prompt, that read a page together."""
PREFILL_ROWS = 512
"""Of prompts, in one step."""
PREFILL_PRODUCTS = 4096
"""Tiles times pages of prompts in one step: bounds what attention holds at once."""
CACHE_BYTES = 1 << 30
"""The largest cache that is made without being asked for."""
SCORED_ROWS = 4096
SCORED_LOGITS = 1 << 22
"""Of `logprobs`, at once."""


@dataclass(eq=False, slots=True)
class _Sequence:
    request: Request
    tokens: list[int]
    logprobs: list[float] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    """Positions whose keys and values are in the cache."""
    known: int = 0
    """Of those, positions that others may share."""

    @property
    def drawn(self) -> int:
        return len(self.logprobs)


class TorchEngine:
    """`model` is the engine's own: weight updates replace its tensors."""

    def __init__(
        self, model: Decoder, *, version: int = 0, max_running: int = 64, cache_tokens: int | None = None
    ) -> None:
        """`cache_tokens`: positions of the cache, in pages of `BLOCK`; by default as many as all running sequences can have, up to `CACHE_BYTES`."""
        self.model = model.eval().requires_grad_(False)
        self._weights = Weights(model, version)
        self._max_running = max_running
        dims = model.attentions()[0].cache_dims()
        self._queries = model.config.num_heads // dims.heads
        self._device = model.head_weight.device
        if cache_tokens is None:
            width = dims.heads * (dims.key_dim + (dims.value_dim if dims.own_values else 0))
            position_bytes = width * model.config.num_layers * model.head_weight.element_size()
            cache_tokens = min(
                max_running * multiple(model.config.max_position, BLOCK),
                max(CACHE_BYTES // position_bytes, model.config.max_position),
            )
        self._pages = Pages(multiple(cache_tokens, BLOCK) // BLOCK)
        self._cache: list[LayerPages] | None = None
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []
        self._ended: list[Generated] = []
        self._drawn: list[Drawn] = []
        self._is_paused = self._is_asleep = False
        self._prompt_tokens = self._shared_tokens = self._generated_tokens = 0

    @property
    def version(self) -> int:
        return self._weights.version

    @property
    def has_weights(self) -> bool:
        """Not between a deep sleep and the update after it."""
        return self._weights.are_here

    # Requests

    def submit(self, request: Request) -> None:
        if any(s.request.id == request.id for s in (*self._running, *self._waiting)):
            raise ValueError(f"request {request.id} is under way already")
        if not request.tokens or request.max_tokens < 1:
            raise ValueError(f"request {request.id}: at least one token, and max_tokens of 1 or more")
        if not 0 <= min(request.tokens) <= max(request.tokens) < self.model.config.vocab_size:
            raise ValueError(f"request {request.id}: tokens of 0 to {self.model.config.vocab_size - 1}")
        if len(request.tokens) + 1 > self._last_length:
            raise ValueError(
                f"request {request.id}: {len(request.tokens)} tokens leave no room; this engine has {self._last_length} positions"
            )
        self._waiting.append(_Sequence(request, list(request.tokens)))

    def cancel(self, request_id: str) -> Generated | None:
        for sequence in (*self._running, *self._waiting):
            if sequence.request.id == request_id:
                return self._end(sequence, Ending.ABORTED)
        return None

    @torch.inference_mode()
    def step(self) -> list[Generated]:
        if not self._is_paused:
            if not self._weights.are_here:
                raise ValueError("step: the weights were dropped by sleep; update them before")
            self._admit()
            work = self._work()
            if work:
                self._forward(work)
            self._pages.trim(self._pages.held if self._running else self._pages.capacity)
        ended, self._ended = self._ended, []
        return ended

    def drawn(self) -> list[Drawn]:
        drawn, self._drawn = self._drawn, []
        return drawn

    # Between steps

    def pause(self, mode: Literal["keep", "abort"]) -> list[Generated]:
        self._is_paused = True
        return [] if mode == "keep" else self._end_all(Ending.PAUSED)

    def resume(self) -> None:
        if self._is_asleep:
            raise ValueError("resume: the engine sleeps; wake it first")
        self._is_paused = False

    def sleep(self, level: Literal[1, 2]) -> None:
        self._only_paused("sleep")
        self._forget()
        self._cache = None
        forget_plans()
        if level == 2:
            self._weights.drop()
        self._is_asleep = True

    def wake(self) -> None:
        if not self._weights.are_here:
            raise ValueError("wake: the weights were dropped; a weight update comes first")
        self._is_asleep = False

    def begin_update(self, version: int) -> None:
        self._only_paused("begin_update")
        self._weights.begin(version)

    def load_bucket(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        self._weights.load(tensors)

    def load_piece(self, name: str, start: int, flat: Tensor) -> None:
        self._weights.load_piece(name, start, flat)

    def finish_update(self, version: int) -> None:
        self._only_paused("finish_update")
        old = self.version
        self._weights.finish(version)
        self._forget()
        # What has been drawn is of the old version, and is recorded so; a request that has drawn nothing yet stays.
        self._ended += [self._end(s, Ending.PAUSED, version=old) for s in list(self._waiting) if s.drawn]

    def abandon_update(self) -> None:
        self._weights.abandon()

    @torch.no_grad()
    def logprobs(self, sequences: Sequence[Sequence[int]], *, temperature: float) -> list[list[float]]:
        found: list[list[float]] = []
        batch: list[Sequence[int]] = []
        for sequence in sequences:
            if batch and sum(map(len, batch)) + len(sequence) > SCORED_ROWS:
                found += self._scored(batch, temperature)
                batch = []
            batch.append(sequence)
        return found + (self._scored(batch, temperature) if batch else [])

    def stats(self) -> EngineStats:
        return EngineStats(
            version=self.version,
            running=len(self._running),
            waiting=len(self._waiting),
            cache_tokens=self._pages.held * BLOCK,
            cache_capacity=self._pages.capacity * BLOCK,
            prompt_tokens=self._prompt_tokens,
            shared_tokens=self._shared_tokens,
            generated_tokens=self._generated_tokens,
        )

    # One step

    @property
    def _last_length(self) -> int:
        return min(self.model.config.max_position, self._pages.capacity * BLOCK)

    def _admit(self) -> None:
        for sequence in list(self._waiting):
            if len(self._running) >= self._max_running:
                return
            if self._waits_for_a_sibling(sequence):
                continue
            if not self._place(sequence):
                return
            self._waiting.remove(sequence)
            self._running.append(sequence)

    def _waits_for_a_sibling(self, sequence: _Sequence) -> bool:
        """Whether more of its beginning than is known now will be, once another of its group is computed."""
        siblings = [
            s for s in self._running if s.request.group and s.request.group == sequence.request.group and not s.known
        ]
        if not siblings:
            return False
        known = self._pages.find(sequence.tokens, len(sequence.tokens) - 1).length
        return any(common_length(s.tokens, sequence.tokens) > known + 1 for s in siblings)

    def _place(self, sequence: _Sequence) -> bool:
        """Pages for all its tokens; False where there are too few now."""
        prefix = self._pages.find(sequence.tokens, len(sequence.tokens) - 1)
        sources = [prefix.partial[0]] if prefix.partial else []
        self._pages.hold((*prefix.pages, *sources))
        needed = multiple(len(sequence.tokens), BLOCK) // BLOCK - len(prefix.pages)
        if needed > self._pages.available:
            self._pages.release((*prefix.pages, *sources))
            return False
        taken = [page for page in (self._pages.take() for _ in range(needed)) if page is not None]
        if prefix.partial:
            source, target = (torch.tensor([page], device=self._device) for page in (sources[0], taken[0]))
            for layer in self._layers():
                layer.copy(source, target)
        self._pages.release(sources)
        sequence.pages = [*prefix.pages, *taken]
        sequence.computed, sequence.known = prefix.length, 0
        self._shared_tokens += prefix.length
        return True

    def _work(self) -> list[tuple[_Sequence, int]]:
        """(sequence, tokens of it to compute): the next one of each that is under way, and prompts up to a step's share."""
        work: list[tuple[_Sequence, int]] = []
        rows, products = PREFILL_ROWS, PREFILL_PRODUCTS
        for sequence in list(self._running):
            left = len(sequence.tokens) - sequence.computed
            if not sequence.pages:  # put back for another's sake
                continue
            if left == 1:
                if self._has_room(sequence):
                    work.append((sequence, 1))
                continue
            tiles = min(
                rows // TILE_ROWS, max(1, products // len(sequence.pages)), multiple(left, TILE_ROWS) // TILE_ROWS
            )
            if tiles:
                work.append((sequence, min(left, tiles * TILE_ROWS)))
                rows -= tiles * TILE_ROWS
                products -= tiles * len(sequence.pages)
        return work

    def _has_room(self, sequence: _Sequence) -> bool:
        """A page for its next position, taken from the youngest where there is none; False where it is itself put back, or was."""
        while sequence.pages and sequence.computed // BLOCK >= len(sequence.pages):
            page = self._pages.take()
            if page is None:
                self._put_back(self._running[-1])
            else:
                sequence.pages.append(page)
        return bool(sequence.pages)

    def _put_back(self, sequence: _Sequence) -> None:
        """To wait, first in line; what it has drawn stays, its cache is computed anew."""
        self._running.remove(sequence)
        self._vacate(sequence)
        self._waiting.appendleft(sequence)

    def _vacate(self, sequence: _Sequence) -> None:
        self._pages.release(sequence.pages)
        sequence.pages, sequence.computed, sequence.known = [], 0, 0

    def _forward(self, work: list[tuple[_Sequence, int]]) -> None:
        rows, tiles, last_rows = self._rows([w for w in work if w[1] == 1], [w for w in work if w[1] > 1])
        tokens, positions, slots = zip(*rows, strict=True)
        hidden_TD = paged_forward(
            self.model, self._tensor(tokens), self._tensor(positions), self._tensor(slots), self._layers(), tiles
        )
        whole: list[_Sequence] = []
        for sequence, count in work:
            sequence.computed += count
            self._prompt_tokens += count
            if sequence.computed < len(sequence.tokens):
                continue
            self._prompt_tokens -= sequence.drawn > 0
            whole.append(sequence)
            if not sequence.known:
                sequence.known = sequence.computed
                self._pages.know(sequence.tokens, sequence.pages)
        if whole:
            self._draw(whole, hidden_TD[self._tensor([last_rows[s] for s in whole])])

    def _rows(
        self, single: list[tuple[_Sequence, int]], several: list[tuple[_Sequence, int]]
    ) -> tuple[list[tuple[int, int, int]], list[Tiles], dict[_Sequence, int]]:
        """((token, position, slot) of each row, tiles over them, the row of each sequence's last token)"""
        rows = [_row(sequence, sequence.computed) for sequence, _ in single]
        last_rows = {sequence: row for row, (sequence, _) in enumerate(single)}
        rows += rows[:1] * (multiple(len(rows), ROWS) - len(rows))
        tiles = (
            [self._tiles(slice(0, len(rows)), [(s, s.computed, s.computed) for s, _ in single], 1)] if single else []
        )
        begin, spans = len(rows), []
        for sequence, count in several:
            end = sequence.computed + count
            for first in range(sequence.computed, end, TILE_ROWS):
                last = min(first + TILE_ROWS, end) - 1
                spans.append((sequence, first, last))
                rows += [_row(sequence, min(position, last)) for position in range(first, first + TILE_ROWS)]
            last_rows[sequence] = len(rows) - 1
        if several:
            tiles.append(self._tiles(slice(begin, len(rows)), spans, TILE_ROWS))
        return rows, tiles, last_rows

    def _tiles(self, rows: slice, spans: list[tuple[_Sequence, int, int]], tile_rows: int) -> Tiles:
        return plan_tiles(
            rows,
            [(first, last) for _, first, last in spans],
            [sequence.pages[: last // BLOCK + 1] for sequence, _, last in spans],
            tile_rows=tile_rows,
            queries=self._queries,
            in_use=self._pages.in_use,
            device=self._device,
        )

    def _draw(self, sequences: list[_Sequence], hidden_SD: Tensor) -> None:
        logits_SV = head_logits(self.model, hidden_SD)
        requests = [s.request for s in sequences]
        constrained = [row for row, request in enumerate(requests) if request.constraint is not None]
        own_CV = logits_SV[constrained]
        for row in constrained:
            constraint = requests[row].constraint
            assert constraint is not None
            constraint.mask(logits_SV[row])
        tokens_S, logprobs_S = draw(logits_SV, requests, [len(s.tokens) for s in sequences])
        if constrained:
            logprobs_S[constrained] = chosen(own_CV, [requests[row] for row in constrained], tokens_S[constrained])
        last_length = self._last_length
        for row, (sequence, token, logprob) in enumerate(
            zip(sequences, tokens_S.tolist(), logprobs_S.tolist(), strict=True)
        ):
            request = sequence.request
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            if request.constraint is not None:
                request.constraint.accept(token)
            if request.streamed:
                self._drawn.append(_drawn(request, token, logits_SV[row]))
            if token in request.stop_tokens:
                self._ended.append(self._end(sequence, Ending.STOP))
            elif sequence.drawn == request.max_tokens or len(sequence.tokens) == last_length:
                self._ended.append(self._end(sequence, Ending.LENGTH))
        self._generated_tokens += len(sequences)

    def _end(self, sequence: _Sequence, ending: Ending, *, version: int | None = None) -> Generated:
        request = sequence.request
        if sequence in self._running:
            self._running.remove(sequence)
            self._pages.know(sequence.tokens[: sequence.computed], sequence.pages)
            self._vacate(sequence)
        else:
            self._waiting.remove(sequence)
        segment = Segment(
            source=TokenSource.POLICY,
            tokens=tuple(sequence.tokens[len(request.tokens) :]),
            logprobs=tuple(sequence.logprobs),
            policy_version=self.version if version is None else version,
            temperature=request.temperature,
            ending=ending,
        )
        return Generated(request.id, segment)

    def _end_all(self, ending: Ending) -> list[Generated]:
        return [self._end(sequence, ending) for sequence in (*self._running, *self._waiting)]

    def _forget(self) -> None:
        """The cache: what runs waits, to be computed anew."""
        for sequence in reversed(self._running[:]):
            self._put_back(sequence)
        self._pages.forget()

    def _scored(self, sequences: list[Sequence[int]], temperature: float) -> list[list[float]]:
        lengths = [len(s) for s in sequences]
        tokens_T = self._tensor([token for s in sequences for token in s])
        hidden_TD = ragged_forward(self.model, tokens_T, lengths).hidden_TD
        rows = max(ROWS, SCORED_LOGITS // self.model.config.vocab_size // ROWS * ROWS)
        picked_T = torch.cat(
            [
                torch.log_softmax(head_logits(self.model, part) / (temperature or 1.0), -1)
                .gather(1, after.unsqueeze(1))
                .squeeze(1)
                for part, after in zip(hidden_TD.split(rows), tokens_T.roll(-1).split(rows), strict=True)
            ]
        )
        return [part[:-1].tolist() for part in picked_T.split(lengths)]

    def _layers(self) -> list[LayerPages]:
        if self._cache is None:
            self._cache = new_pages(self.model, self._pages.capacity)
        return self._cache

    def _tensor(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _only_paused(self, what: str) -> None:
        if not self._is_paused:
            raise ValueError(f"{what}: only when paused")


def _row(sequence: _Sequence, position: int) -> tuple[int, int, int]:
    """(token, position, slot)"""
    return sequence.tokens[position], position, sequence.pages[position // BLOCK] * BLOCK + position % BLOCK


def _drawn(request: Request, token: int, logits_V: Tensor) -> Drawn:
    logprobs_V = torch.log_softmax(logits_V, -1)
    top = torch.topk(logprobs_V, request.top_logprobs)
    rivals = tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    return Drawn(request.id, token, float(logprobs_V[token]), rivals)
