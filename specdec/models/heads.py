"""Heads: networks of drafters that read the target's hidden states. How their folders are found, and checked before any
weight is loaded; what a family has to give for that. Of no family, and no library of models.

A head is a checkpoint without a tokenizer, whose config.json its own family reads. `tensors.py` reads its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from specdec.errors import UserError
from specdec.models.checkpoints import TARGET, ModelSource, Role, find_folder, find_model, read_config, weight_files
from specdec.models.config_fields import is_size
from specdec.models.tensors import Shapes, shapes_in

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.models.lm import CachedLM

Settings = TypeVar("Settings", covariant=True)


@dataclass(frozen=True, kw_only=True)
class HeadRole(Role):
    """The part of such a network. `read`: what its family makes of a folder's config.json and tensors; raises UserError
    for what it does not understand."""

    read: Callable[[HeadSource], Head]

    @property
    def weight_patterns(self) -> tuple[str, ...]:
        """Safetensors, else files of torch.save, of which only tensors are taken."""
        return ("*.safetensors", "*.bin")


class HeadNetwork(Protocol):
    """A head that was loaded: what `Setup.lm` is for its drafters."""

    @property
    def taps(self) -> tuple[int, ...]:
        """The layers of the target that it reads."""

    def clear(self) -> None:
        """Forget the text."""

    def warm_up(self) -> None:
        """Record what the graph backend records, so that no measured pass does."""


class Head(Protocol):
    """What a family knows of a head before its weights are loaded."""

    @property
    def vocab_size(self) -> int:
        """Rows of the table by which it reads tokens."""

    @property
    def kv_values_per_token(self) -> int:
        """Numbers in its own cache per position."""

    def check(self, source: HeadSource, target: ModelSource) -> None:
        """Raise UserError unless it was made for this target, and its tensors are all there and all have a place."""

    def load(self, source: HeadSource, target: CachedLM, backend: str) -> HeadNetwork:
        """Its weights where the target is and in its dtype; `backend`: eager or graph. Raises UserError."""


@dataclass(frozen=True)
class HeadSource(ModelSource):
    """A head that was found but not loaded. `files`: of its weights; none in a dry run."""

    role: HeadRole
    target: ModelSource
    files: list[Path] = field(repr=False)

    @cached_property
    def head(self) -> Head:
        return self.role.read(self)

    @cached_property
    def shapes(self) -> Shapes:
        """Its tensors by name. Raises UserError for a file that is cut or is none."""
        return shapes_in(self.files)

    @property
    def context_len(self) -> int:
        """The target's: what a head says of itself is the length of the texts that it was trained on."""
        return self.target.context_len

    @property
    def vocab_size(self) -> int:
        return self.head.vocab_size

    @property
    def kv_values_per_token(self) -> int:
        return self.head.kv_values_per_token

    @property
    def num_parameters(self) -> int:
        return sum(shape.num_values for shape in self.shapes.values())


class LoadedHead(NamedTuple, Generic[Settings]):
    """What a network is made of: a head of some settings, its tensors by name, the target that it reads, and where it
    was found. `is_recorded`: whether its passes are recorded, as the graph backend's are."""

    head: Settings
    tensors: Mapping[str, Tensor]
    target: CachedLM
    source: HeadSource
    is_recorded: bool


def find_models(
    names: Mapping[Role, str], needs_weights: Callable[[Role], bool] = lambda role: True
) -> dict[Role, ModelSource]:
    """The target and the drafters' models of a run, by their names. Raises UserError as `find_model`."""
    found = {TARGET: find_model(TARGET, names[TARGET], with_weights=needs_weights(TARGET))}
    for role, name in names.items():
        if isinstance(role, HeadRole):
            found[role] = _find_head(role, name, found[TARGET], needs_weights(role))
        elif role is not TARGET:
            found[role] = find_model(role, name, with_weights=needs_weights(role))
    return found


def _find_head(role: HeadRole, name: str, target: ModelSource, with_weights: bool) -> HeadSource:
    path = find_folder(role, name, with_weights)
    source = HeadSource(role, name, path, read_config(role, path), target, [])
    source.files.extend(weight_files(source) if with_weights else [])
    return source


@dataclass(frozen=True)
class MadeFor:
    """The target that a head was made for, as far as it says (None: it does not)."""

    taps: tuple[int, ...]
    hidden_size: int
    vocab_size: int
    num_layers: int | None = None
    verifier: str | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for what no target is."""
        sizes = [self.hidden_size, self.vocab_size, *([] if self.num_layers is None else [self.num_layers])]
        if not all(map(is_size, sizes)):
            raise ValueError(f"a target of the sizes {sizes}")
        if not self.taps or any(type(tap) is not int for tap in self.taps):
            raise ValueError(f"layers of the target to read: {list(self.taps)}")
        if self.verifier is not None and not isinstance(self.verifier, str):
            raise ValueError(f"a target called {self.verifier!r:.40}")

    def require(self, source: HeadSource, target: ModelSource) -> None:
        """Raise UserError where that is another target."""
        own = target.config
        if difference := next(self._differences(own), None):
            raise UserError(f"{source.title} was made for another target than {target.name!r}: {difference}")
        if self.verifier is not None and not _is_called(target, self.verifier):
            raise UserError(
                f"{source.title} names its target, {self.verifier!r}, and not {target.name!r}: "
                "give that target, or call its folder so if it is the same"
            )

    def _differences(self, target: Mapping[str, Any]) -> Any:
        layers = target["num_hidden_layers"]
        if self.hidden_size != target["hidden_size"]:
            yield f"hidden size {self.hidden_size}, not {target['hidden_size']}"
        if self.num_layers not in (None, layers):
            yield f"{self.num_layers} layers, not {layers}"
        if outside := [tap for tap in self.taps if not 0 <= tap < layers]:
            yield f"it reads the output of layer {outside[0]}, and there are the layers 0 to {layers - 1}"
        if self.vocab_size != target["vocab_size"]:
            yield f"vocabulary {self.vocab_size}, not {target['vocab_size']}"


def _is_called(target: ModelSource, verifier: str) -> bool:
    """Whether a target goes by a name: it was asked for by it, or its folder, the hub's cache or its own config.json
    say so. Organisations are left aside."""
    stated = str(target.config.get("_name_or_path") or "")
    parts = [part.rpartition("--")[2] for part in target.path.absolute().parts if part.startswith("models--")]
    known = {_last(one) for one in (target.name, stated, str(target.path.absolute()), *parts)}
    return _last(verifier) in known


def _last(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()


def require_tensors(
    source: HeadSource,
    wanted: Mapping[str, Sequence[int]],
    optional: Mapping[str, Sequence[int]],
    left_aside: Sequence[str] = (),
) -> None:
    """Raise UserError unless a head's tensors are those of `wanted`, and some of `optional`, each of its sizes; nothing
    is asked of those of `left_aside`."""
    found, where = source.shapes, source.title
    if missing := [name for name in wanted if name not in found]:
        raise UserError(f"{where} has no tensor {missing[0]}: its file is not whole, or of another layout")
    sizes = {**wanted, **{name: sizes for name, sizes in optional.items() if name in found}}
    for name, size in sizes.items():
        if found[name].sizes != tuple(size):
            raise UserError(f"{where}: {name} is {list(found[name].sizes)}, and its config.json says {list(size)}")
    if strange := [name for name in found if name not in sizes and name not in left_aside]:
        raise UserError(f"{where} has a tensor that has no place here, {strange[0]}: it would not be computed rightly")
