"""Loaded: the models of a run, each loaded when it is first asked for, and kept. Which of them plays which part, and
whether they fit each other, was decided before (`session.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from specdec.models.checkpoints import TARGET, ModelSource, Role
from specdec.models.heads import HeadNetwork, HeadSource
from specdec.models.lm import CachedLM
from specdec.models.load import load_lm
from specdec.models.room import loading_title, require_room

log = logging.getLogger("failfast")
SLOW_TO_LOAD = 10**9  # bytes from which on a silence has to be explained


@dataclass
class LoadedModels:
    """The models of `sources`, and the heads over the target. `predicted`: the tokens that any of them writes, as
    `predicted_tokens`. `is_told`: each is named as it loads, however small. `most_nodes`: of the largest tree that the
    target will verify."""

    sources: Mapping[Role, ModelSource]
    device: torch.device
    dtype: torch.dtype
    backend: str
    predicted: tuple[int, tuple[int, ...]]
    is_told: bool = False
    most_nodes: int = 0
    _lms: dict[Role, CachedLM] = field(default_factory=dict, repr=False)
    _heads: dict[Role, HeadNetwork] = field(default_factory=dict, repr=False)

    def of(self, role: Role) -> Any:
        """What plays a part: a `CachedLM`, or a `HeadNetwork`. Raises UserError where it cannot be loaded."""
        source = self.sources[role]
        return self._head(source) if isinstance(source, HeadSource) else self._lm(source)

    def _head(self, source: HeadSource) -> HeadNetwork:
        if source.role not in self._heads:
            target = self.of(TARGET)
            self._heads[source.role] = head = source.head.load(source, target, self.backend)
            target.warm_up(head.taps, self.most_nodes)
            head.warm_up()
        return self._heads[source.role]

    def _lm(self, source: ModelSource) -> CachedLM:
        if source.role not in self._lms:
            # Tables are padded, each in its own way: such ids are never written and never drafted.
            vocab_size, gaps = self.predicted
            require_room(source, self.device, self.dtype)
            if self.is_told or source.weight_bytes(self.dtype.itemsize) >= SLOW_TO_LOAD:
                log.info("loading %s", loading_title(source, self.dtype, self.device, self.backend))
            self._lms[source.role] = load_lm(source, self.device, self.dtype, vocab_size, self.backend, gaps)
            self._lms[source.role].warm_up(num_nodes=self.most_nodes if source.role is TARGET else 0)
        return self._lms[source.role]
