"""Levels of a head's trees in recorded passes: which nodes go on is chosen where they are scored, so that the levels of
a tree run one after the other without waiting for the host, which reads each of them while the next one runs.

What the host asks for decides. Where it asks for other nodes than were chosen, as between equals it may, they are sent,
and that level runs again. The passes of other trees are `eagle3_trees.py`'s.

Shape suffixes as there; X levels of a tree, the root's among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from specdec.models.eagle3_joined import JoinedLayer
from specdec.models.eagle3_settings import Eagle3Settings
from specdec.models.eagle3_trees import ROOT, Eagle3Trees
from specdec.models.graph.branches import Branches, Level, num_words
from specdec.models.graph.network import Place
from specdec.models.heads import LoadedHead

MOST_NODES = 64  # of a level: only attention's kernels of few rows take a part of a tree


@dataclass(frozen=True)
class TreeKind:
    """What decides how trees grow: candidates of a node, which are also the nodes of a level that go on; levels, the
    root's candidates among them; and the tokens after which nothing grows."""

    top_k: int
    depth: int
    stop_ids: frozenset[int]


@dataclass
class LevelBuffers:
    """What the passes of a tree's levels read and leave, level by level; the root is level 0. On the device the nodes,
    the states of all of them and of each level two `state`s of its pass: where its keys go, and which are seen. On the
    host (on a GPU: pinned, written by the device itself) candidates, and the tokens and parents that were chosen."""

    kind: TreeKind
    levels: list[Level]
    depths: list[Tensor]
    states_NC: Tensor
    places_X24: Tensor
    given_X24: Tensor
    stops: Tensor
    found: list[Tensor]
    told: list[Tensor]
    done: dict[int, Callable[[], None]] = field(default_factory=dict)  # what waits for a level that runs

    @classmethod
    def allocate(cls, kind: TreeKind, num_words_of_draft: int, like_C: Tensor) -> LevelBuffers:
        """`like_C`: a state, for its size and where it is."""
        device, depth, is_gpu = like_C.device, kind.depth, like_C.device.type == "cuda"
        count, sizes = min(kind.top_k, num_words_of_draft), [1]
        for _ in range(1, depth):
            sizes.append(min(kind.top_k, sizes[-1] * count))
        begins = [0, 0, *accumulate(sizes[1:])][:depth]
        words = num_words(max(1, sum(sizes[1:])))
        rows = list(zip(begins, sizes, strict=True))
        # First positions are after the text's end, which is added to them; the root's are not looked at.
        given = [[[begin, size, 1, -1], [0, begin + size, 1, -1]] for begin, size in rows]
        # Nodes of level x stand x - 1 after the text's end, and their pass begins where their keys go.
        depths = [torch.full((size,), x - 1 - begin, device=device) for x, (begin, size) in enumerate(rows)]
        return cls(
            kind,
            [Level.allocate(begin, size, words, device) for begin, size in rows],
            depths,
            like_C.new_zeros(sum(sizes), like_C.shape[-1]),
            torch.zeros(depth, 2, 4, dtype=torch.long, device=device),
            torch.tensor(given, device=device),
            torch.tensor(sorted(kind.stop_ids), dtype=torch.long, device=device),
            [torch.zeros(size, count, 2, dtype=torch.float64, pin_memory=is_gpu) for size in sizes],
            [torch.zeros(size, 2, dtype=torch.long, pin_memory=is_gpu) for size in sizes],
        )

    @property
    def num_nodes(self) -> int:
        """That are run."""
        return len(self.states_NC) - 1

    def states_of(self, level: int) -> Tensor:
        """Of a level's nodes, which come after the root's."""
        nodes = self.levels[level]
        begin = 1 + nodes.begin if level else 0
        return self.states_NC[begin : begin + len(nodes.ids_N)]

    def forget_after(self, level: int) -> None:
        """What has run after a level is of other nodes than will be."""
        self.done = {one: wait for one, wait in self.done.items() if one <= level}

    def chosen(self, level: int, asked: Sequence[tuple[int, int]]) -> list[int] | None:
        """Where in a level these tokens after these rows of the level before stand; None: not all were chosen."""
        rows: dict[tuple[int, ...], int] = {}
        for row, pair in enumerate(self.told[level].tolist()):
            rows.setdefault(tuple(pair), row)
        found = [rows.get(pair) for pair in asked]
        return None if None in found else [row for row in found if row is not None]

    @torch.inference_mode()
    def send(self, level: int, asked: Sequence[tuple[int, int]]) -> list[int]:
        """Put them there instead; where they stand. What was run of the level and after it is forgotten."""
        nodes = self.levels[level]
        padded = torch.tensor([*asked, *[(0, 0)] * (len(nodes.ids_N) - len(asked))])
        for part_N, sent_N in zip((nodes.ids_N, nodes.parents_N), padded.unbind(1), strict=True):
            part_N.copy_(sent_N)
        above, found_NK2 = self.levels[level - 1], self.found[level - 1][padded[:, 1]]
        log_probs_NK = found_NK2[..., 1].masked_fill(found_NK2[..., 0] != padded[:, :1], -torch.inf)
        log_probs_NK[len(asked) :] = -torch.inf
        own_N = log_probs_NK.amax(-1).float().to(above.scores_N.device)
        nodes.scores_N.copy_(above.scores_N[nodes.parents_N] + own_N)
        nodes.stand_after(above)
        self.forget_after(level - 1)
        return list(range(len(asked)))


class Eagle3Levels(Eagle3Trees):
    """A head that also writes trees, where its passes are recorded."""

    def __init__(self, loaded: LoadedHead[Eagle3Settings]) -> None:
        super().__init__(loaded)
        self._known: dict[TreeKind, LevelBuffers] = {}
        self._prepared: LevelBuffers | None = None
        self._growing: LevelBuffers | None = None  # of the tree at hand; None: its passes are those of any tree
        self._level, self._num_nodes = 0, 0  # the last that was asked for, and nodes up to it
        self._above = {ROOT: 0}  # where in that level each of its nodes stands

    def forget_nodes(self) -> None:
        super().forget_nodes()
        self._level, self._num_nodes, self._above = 0, 0, {ROOT: 0}
        if self._growing is not None:
            self._growing.forget_after(0)

    def prepare(self, top_k: int, depth: int, stop_ids: Collection[int] = ()) -> None:
        self._prepared = self._growing = None
        joined, graphs = self._joined, self._graphs
        if joined is None or graphs is None or top_k > MOST_NODES:
            super().prepare(top_k, depth, stop_ids)
            return
        kind = TreeKind(top_k, depth, frozenset(stop_ids))
        if kind not in self._known:
            self._known[kind] = LevelBuffers.allocate(kind, len(self._tokens_V), self._states_T1C[0])
        self._prepared = self._known[kind]
        self.clear()
        self.take_root(self._features_LF[:1], [0], top_k, depth - 1)
        self.clear()

    def begin_trees(self, top_k: int, depth: int, stop_ids: Collection[int] = ()) -> None:
        self._prepared = self._known.get(TreeKind(top_k, depth, frozenset(stop_ids)))

    def take_root(self, features_LF: Tensor, tokens: Sequence[int], top_k: int, num_ahead: int = 0) -> np.ndarray:
        own = self._prepared
        if own is None or own.kind.top_k != top_k:
            self._growing = None
            return super().take_root(features_LF, tokens, top_k, num_ahead)
        self._growing = own
        self._make_room(self.length + len(tokens) + own.num_nodes)
        self.take_in(features_LF, tokens)
        self.forget_nodes()
        for level in range(1 + num_ahead):
            self._launch(own, level)
        return self._answers(own, 0, [0])

    def root_at(self, row: int, top_k: int) -> np.ndarray:
        self._growing = None
        return super().root_at(row, top_k)

    def grow(self, tokens: Sequence[int], parents: Sequence[int], top_k: int) -> np.ndarray:
        own = self._growing
        if own is None:
            return super().grow(tokens, parents, top_k)
        level = self._level + 1
        if level >= own.kind.depth:
            raise ValueError(f"level {level} of trees that were prepared for {own.kind.depth}")
        asked = [(token, self._above[parent]) for token, parent in zip(tokens, parents, strict=True)]
        rows = own.chosen(level, asked)
        if rows is None:
            rows = own.send(level, asked)
        if level not in own.done:
            self._launch(own, level)
        self._level, self._above = level, dict(enumerate(rows, start=self._num_nodes))
        self._num_nodes += len(rows)
        return self._answers(own, level, rows)

    def _launch(self, own: LevelBuffers, level: int) -> None:
        if self._graphs is None or self._joined is None:
            raise ValueError("levels are recorded")
        joined = self._joined
        self._graphs.run(("level", own.kind, level), lambda: self._run_level(own, level, joined))
        own.done[level] = self._graphs.mark()

    def _run_level(self, own: LevelBuffers, level: int, joined: JoinedLayer) -> None:
        """The pass: candidates after each node, and the next level chosen from them; its keys, values and states are
        kept."""
        fed_BC = self._grown_level(own, level, joined) if level else self._rooted(own)
        own.states_of(level).copy_(fed_BC)
        normed_BC = fed_BC if self.head.feeds_normed else joined.normed(fed_BC)
        found = self.few(joined.logits(normed_BC, self._never), own.found[level])
        if level + 1 < own.kind.depth:
            here, after = own.levels[level : level + 2]
            joined.by.operations.go_on(found, own.stops, here, after, own.told[level + 1])

    def _rooted(self, own: LevelBuffers) -> Tensor:
        """The root's state, after the rows of `take_in`; from here on levels stand after them."""
        own.places_X24.copy_(own.given_X24)
        own.places_X24[:, :, 0] += self._first + self._last + 1
        return self._states_T1C[0]

    def _grown_level(self, own: LevelBuffers, level: int, joined: JoinedLayer) -> Tensor:
        """The states of a level's nodes."""
        nodes, (place, seen) = own.levels[level], own.places_X24[level]
        tree = Branches(own.depths[level], nodes.sees_NW, is_part=True)
        where = Place(self._angles_2PE, self._cache_2GPD, place, joined.layer.head_norms_2D, tree)
        states_BC = own.states_of(level - 1).index_select(0, nodes.parents_N)
        out_BC = joined.run(self._embedded(nodes.ids_N), states_BC, where, seen)
        return joined.normed(out_BC) if self.head.feeds_normed else out_BC

    def few(self, logits_BV: Tensor, found_BK2: Tensor) -> tuple[Tensor, Tensor]:
        """See `reference.few_most_probable`. An experiment may put other probabilities in its place, before trees are
        prepared."""
        if self._joined is None:
            raise ValueError("levels are recorded")
        return self._joined.by.operations.few_most_probable(logits_BV, self._tokens_V, found_BK2)

    def _answers(self, own: LevelBuffers, level: int, rows: list[int]) -> np.ndarray:
        """The candidates after nodes of a level, once it has run."""
        own.done[level]()
        return self._checked(own.found[level].numpy()[rows])
