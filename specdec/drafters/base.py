"""What every drafter family is made of: settings as a spec, flags, a live and a replayed drafter, chains.

A family is one file beside this one with a constant FAMILY; `families.py` finds them. No family is named here, and no
network is run: what runs one is imported by those who ask for a live drafter.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from argparse import ArgumentTypeError
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, get_type_hints

from specdec.decoding.chains import Chain, Chains, Text
from specdec.decoding.loop import Drafter
from specdec.decoding.offers import Offers
from specdec.decoding.trees import Candidates, Tree
from specdec.drafters.earlier import NOTHING, Earlier
from specdec.drafters.flags import Flag, Options
from specdec.errors import UserError
from specdec.models.checkpoints import Role
from specdec.records.rounds import Round

if TYPE_CHECKING:
    from torch import Tensor

    from specdec.decoding.cost_aware import Advice, RoundCosts
    from specdec.decoding.sampling import Sampler


@dataclass(frozen=True)
class Setup:
    """What a drafter is given by those who run it.

    `lm`: the model, or the head, of its part (`Spec.role`), None in a replay. `sampler`: draws the drafts; None:
    greedy. `advice`: what a policy that has learnt knows; `costs`: what one reckons with that has not. `earlier`: the
    answers to the questions before, for a spec that reads them.
    """

    stop_ids: Collection[int]
    options: Options = field(default_factory=dict)
    lm: Any = None
    mask_id: int | None = None
    sampler: Sampler | None = None
    advice: Advice | None = None
    costs: RoundCosts | None = None
    earlier: Earlier = NOTHING


class Recorded(Protocol):
    """What a replay asks of a trace (`specdec.traces.trace.Trace`)."""

    @property
    def prompt_ids(self) -> list[int]: ...
    @property
    def output_tokens(self) -> list[int]: ...
    @property
    def question_id(self) -> int: ...
    @property
    def stop_ids(self) -> frozenset[int]: ...
    @property
    def num_prefixes(self) -> int: ...
    def chains_of(self, spec: Spec) -> Chains: ...
    def offers_of(self, spec: Spec) -> Offers: ...


@cache
def _hints_of(spec: type) -> dict[str, Any]:
    """The types of a class's fields; they are written as text, and reading text as code takes its time."""
    return get_type_hints(spec)


@dataclass(frozen=True)
class Spec(ABC):
    """A drafter and its settings; the fields of a subclass decide, with the models, what it drafts.

    Class attributes: `name_pattern` and `label_pattern`: its name, and its name in words, with fields in braces.
    `swept`: the flags that its fields, in their order, are chosen by. `kind` is its word for --drafters; `title` its
    words in a legend; `hue` its colour and `marker` its mark in every figure; `role` the model that it needs;
    `priced_as` what a pass of it costs like: "ar" (one token), "block", or a family that profiles may know of itself.
    `switch`: the published flag that asks for it. `is_default`: it runs where nobody names drafters; `is_headline`:
    also where a switch asks for another; `is_static_baseline`: also under --baseline_sweep; `is_policy`: --policy puts
    it in the headline's place. `is_reference`: rankings compare with the best of these. `draws`: where
    --draft_sampling says so, its drafts are sampled (those of a drafter without a model never are).
    `serving`: by server, its settings for the same drafts, with fields in braces (`served.py`); `not_served`: why a
    server that is not there has none. `is_tree`: its drafts are trees, of what a trace holds as offers.
    """

    name_pattern: ClassVar[str]
    label_pattern: ClassVar[str]
    swept: ClassVar[tuple[Flag, ...]] = ()
    kind: ClassVar[str]
    title: ClassVar[str]
    hue: ClassVar[str]
    marker: ClassVar[str]
    role: ClassVar[Role | None] = None
    priced_as: ClassVar[str] = "block"
    switch: ClassVar[str | None] = None
    is_default: ClassVar[bool] = True
    is_headline: ClassVar[bool] = False
    is_static_baseline: ClassVar[bool] = False
    is_policy: ClassVar[bool] = False
    is_reference: ClassVar[bool] = False
    needs_advice: ClassVar[bool] = False
    needs_costs: ClassVar[bool] = False
    draws: ClassVar[bool] = True
    is_tree: ClassVar[bool] = False
    serving: ClassVar[Mapping[str, Mapping[str, str]]] = MappingProxyType({})
    not_served: ClassVar[str] = ""

    @property
    def name(self) -> str:
        """Its name on disk, in logs and tables: no other spec has it, and `parse` reads it back."""
        return self._filled(self.name_pattern, threshold_name)

    @property
    def label(self) -> str:
        """The name in words."""
        return self._filled(self.label_pattern, number_text)

    @property
    def has_own_price(self) -> bool:
        """Whether it is priced by profiles alone that know its family."""
        return self.passes_priced_as not in ("ar", "block")

    @property
    def can_draw(self) -> bool:
        return self.parts[-1].draws and self.model_role is not None

    @property
    def variant(self) -> str:
        """In as few letters as will do, what marks it beside others of its kind in a figure; "" as published."""
        return ""

    @property
    def parts(self) -> tuple[Spec, ...]:
        """What it drafts with, in the order in which it asks them: itself, as a rule. Only the last may need a model,
        and a pass is one of that part's."""
        return (self,)

    @property
    def model_role(self) -> Role | None:
        """The model that it needs: its last part's."""
        return self.parts[-1].role

    @property
    def passes_priced_as(self) -> str:
        """What its passes cost like: its last part's."""
        return self.parts[-1].priced_as

    @property
    def most_nodes(self) -> int:
        """The nodes of its largest tree; 0: its drafts are chains."""
        return 0

    @property
    def reads_earlier(self) -> bool:
        """Whether it drafts from the answers to the questions before (`Setup.earlier`)."""
        return False

    def _filled(self, pattern: str, spelled: Callable[[float], str]) -> str:
        words = {one.name: getattr(self, one.name) for one in fields(self)}
        numbers = {one.name: spelled(words[one.name]) for one in fields(self) if one.type in (float, "float")}
        return pattern.format(**words | numbers)

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The spec of a name; None for a name of another kind. Raises ValueError for a damaged one."""
        hints = _hints_of(cls)
        kinds = {one.name: hints[one.name] for one in fields(cls)}
        groups = {key: f"(?P<{key}>{'.+' if kind is str else '[^_]+'})" for key, kind in kinds.items()}
        found = re.fullmatch(cls.name_pattern.format(**groups), name)
        return cls(**{key: kinds[key](text) for key, text in found.groupdict().items()}) if found else None

    @classmethod
    def sweep(cls, options: Options) -> list[Spec]:
        """What the flags ask for: every combination once."""
        asked = [flag.of(options) for flag in cls.swept]
        return [cls(*chosen) for chosen in product(*((one,) if isinstance(one, str | bool) else one for one in asked))]

    def check_values(self) -> None:
        """Raise UserError for a setting that its flag would refuse: a name is not read by the flags."""
        for one, flag in zip(fields(self), self.swept, strict=False):
            read = flag.more.get("type", str)
            try:
                read(str(getattr(self, one.name)))
            except ArgumentTypeError as error:
                raise UserError(f"{self.name}: {one.name} {error}") from None

    @property
    def first_asked(self) -> int:
        """The tokens that a draft asks for at first, whatever room the budget leaves it."""
        return int(vars(self).get("draft_len") or 0)

    @classmethod
    def stated(cls, config: Mapping[str, Any]) -> Options:
        """Flags that its model's config.json states: they hold where nobody gives them. UserError for nonsense."""
        return {}

    @classmethod
    def block_len(cls, options: Options) -> int:
        """Positions that see each other in a pass; 1: causal attention."""
        return 1

    @classmethod
    def filled_block(cls, options: Options) -> int | None:
        """Positions that a pass fills together, a known one included; None: it fills no block, or that is not said."""
        size = cls.block_len(options)
        return size if size > 1 else None

    @abstractmethod
    def drafter(self, setup: Setup) -> Drafter:
        """A live drafter."""

    @abstractmethod
    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """A drafter that answers from a trace, round by round what the live one would. UserError where it cannot."""

    @property
    def chains_name(self) -> str | None:
        """The chains that a trace holds for it; None: it needs none."""
        return None

    def chain_len(self, options: Options) -> int:
        """The tokens that a chain must have for every draft of this spec: as a rule, the longest one's."""
        return int(vars(self).get("draft_len") or vars(self).get("max_draft_len") or 0)

    def check_context(self, options: Options, context_len: int) -> None:  # noqa: B027
        """Raise UserError for options that models of `context_len` positions have no room for."""

    def derived_chains(self, trace: Recorded) -> Chains | None:
        """Its chains along a trace that holds none, where they follow from the text alone; else None."""
        return None

    def true_chains(self, trace: Recorded) -> Chains | None:
        """Where its trees follow from the text alone, after every prefix the text's own path as far as some tree of its
        kind may hold it; else None."""
        return None

    def is_served(self, server: str) -> bool:
        """Whether the server has these drafts: words for this kind of drafter, and for its settings."""
        return server in self.serving

    def served_drafts(self, trace: Recorded) -> Mapping[str, list[list[int]]]:
        """Where servers' drafter of this kind drafts otherwise: what it does -> its drafts, as long as they may be,
        after each prefix of a trace."""
        return {}

    def token_confidences(self, turn: Round, settings: Mapping[str, Any]) -> list[float | None]:
        """Per drafted token, how probable the drafter held it when it chose it; None where the record does not say.

        `settings`: those of the record's identity.
        """
        known = turn.confidences[: turn.draft_len]
        return [*known, *[None] * (turn.draft_len - len(known))]

    def published_passes(self, rounds: Sequence[Round], settings: Mapping[str, Any]) -> list[int]:
        """Passes a round as the published program counts them for the same drafts (`latency/accounting.py`).

        `settings`: those of the record's identity. What it does not have counts as here.
        """
        return [turn.num_forward_passes for turn in rounds]

    def chain_settings(self, setup: Setup) -> dict[str, Any]:
        """Beside the model, what decides what it would write after a prefix; part of its records' identity."""
        return {}

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        """What else decides its records: what it keeps between rounds, and what it has learnt."""
        return {}


Recordable = Chain | Candidates | Tree  # what a drafter gives after one prefix


@dataclass(frozen=True)
class Recording:
    """What chains are made from: the model of the family's part, the text, and `batch` rows of one pass.

    `features_of`: the target's taps [L, F] of a text, on the device: its tokens, and the layers.
    """

    setup: Setup
    text: Text
    batch: int
    features_of: Callable[[Sequence[int], Sequence[int]], Tensor | None] = lambda ids, taps: None


@dataclass(frozen=True)
class Family:
    """A kind of drafter, whole: what its file hands to the others.

    `record`: the chains of these lengths (name -> tokens), one per prefix, or what trees are made of (name -> size);
    None for a family whose traces hold none.
    `check`: raises UserError for options that do not fit each other.
    """

    specs: tuple[type[Spec], ...]
    flags: tuple[Flag, ...] = ()
    record: Callable[[Recording, Mapping[str, int]], Mapping[str, Sequence[Recordable]]] | None = None
    check: Callable[[Options], None] = lambda options: None


def threshold_name(value: float) -> str:
    """A threshold in a name on disk, as published: no two values share a name; 0.45, 1.0, 0.3000001."""
    return repr(float(value))


def number_text(value: float) -> str:
    """A threshold for people, as short as it can be: 0.45, 1, 0.3000001."""
    return threshold_name(value).removesuffix(".0")
