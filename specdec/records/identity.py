"""Identity: everything that decides what a record holds; what tells two of them apart, and how older ones are read.

Nothing in it changes with the clock or with the place. It knows a live run from a replay, so that neither is taken for
the other. Who made it, where and when is the record's provenance.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from specdec.errors import UserError
from specdec.records import fields, pickles
from specdec.records.fields import is_count, is_str

GREEDY, SAMPLED = "greedy", "sampled"  # how the target decodes
SHUFFLED = ("gpqa",)  # data sets whose questions depend on the seed
# Where a record is from: models that ran; a trace alone; drafts that ran, verified against a trace's text; the
# published program, whose pickles do not say so themselves.
LIVE, REPLAY, TRACE, PUBLISHED = "live", "replay", "trace", "published"
_NAMED = {"target": is_str, "dataset": is_str, "question_id": is_count, "drafter": is_str, "max_new_tokens": is_count}

# The one place where older spellings are read. A name on disk that holds no window and no rule meant any, and the
# identity said which.
RENAMED = {"confidence_threshold": "tau", "engine": "backend"}
NAME_ENDS = (("first_window", 10, "_w{}"), ("rule", "published", "_{}"))
# A threshold of 0 or 1 was written without its decimal: dllm_1_sf_8 is dllm_1.0_sf_8.
_WHOLE = re.compile(r"^((?:dllm_|ar_None_df_|dllm_[^_]+_df_)[01])(?=_|$)")
_DECIMAL = re.compile(r"^((?:dllm_|ar_None_df_|dllm_[^_]+_df_)[01])\.0(?=_|$)")
_FORMER_NAME = re.compile(r"(.+_df_.+?)(?:_w\d+)?(?:_strict)?")


@dataclass(frozen=True)
class Identity:
    """Which question under which drafter, and in `settings` what else decides: prompt, models, arithmetic, sampling
    parameters, and the fields of the drafter's spec. On disk all of it is one dict."""

    target: str
    dataset: str
    question_id: int
    drafter: str
    max_new_tokens: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    origin: str = LIVE

    def __post_init__(self) -> None:
        """Plain builtins, so that what was read back is equal. Raises TypeError for anything else."""
        object.__setattr__(self, "settings", pickles.plain(dict(self.settings)))

    @property
    def is_sampled(self) -> bool:
        return self.settings.get("decoding") == SAMPLED

    def of_drafter(self, drafter: str, settings: Mapping[str, Any], origin: str) -> "Identity":
        """The same question under another drafter, whose settings are added."""
        return replace(self, drafter=drafter, settings={**self.settings, **settings}, origin=origin)

    def require(self, asked: "Identity", what: str, advice: str) -> None:
        """Raise UserError where `asked` differs: "WHAT with other settings (seed: stored 0, asked 1): ADVICE"."""
        difference = first_difference(self._deciding(), asked._deciding())
        if difference is not None:
            raise UserError(f"{what} with other settings ({difference}): {advice}")

    def _deciding(self) -> dict[str, Any]:
        """Without the seed where it decides nothing: nothing is drawn, and the questions do not depend on it."""
        is_idle = self.settings.get("decoding") == GREEDY and self.dataset not in SHUFFLED
        return {key: value for key, value in self.to_builtins().items() if not (is_idle and key == "seed")}

    def to_builtins(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in _NAMED}
        return named | dict(self.settings) | {"origin": self.origin}

    def former(self) -> dict[str, Any]:
        """As it was spelled before, when it said no origin. Logs hold its digest, so those of before match."""
        spelled = {new: old for old, new in RENAMED.items()}
        now = self.to_builtins() | {"drafter": former_name(self.drafter)}
        return {spelled.get(key, key): value for key, value in now.items() if key != "origin"}

    @classmethod
    def from_builtins(cls, data: Any, origin: str = LIVE) -> "Identity":
        """The inverse of `to_builtins`; `origin` of one that is older than the word. UserError for anything else."""
        settings = dict(current(fields.take({"identity": data}, "identity", fields.is_dict)))
        named: dict[str, Any] = {name: fields.take(settings, name, check) for name, check in _NAMED.items()}
        origin = fields.take({"origin": origin} | settings, "origin", lambda value: value in (LIVE, REPLAY, TRACE))
        others = {key: value for key, value in settings.items() if key not in (*_NAMED, "origin")}
        try:
            return cls(**named, settings=others, origin=origin)
        except TypeError as error:
            raise UserError(f"identity: {error}") from None


def former_name(drafter: str) -> str:
    """A drafter's name as it was when names held no first window, no rule and no decimal of 1.0; the same for most.

    >>> former_name("dllm_0.05_df_0.45_60_10_w9_strict")
    'dllm_0.05_df_0.45_60_10'
    """
    found = _FORMER_NAME.fullmatch(drafter)
    return _renamed(_DECIMAL, found[1] if found else drafter)


def current(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as it is spelled now, from any version of this program."""
    found = {RENAMED.get(key, key): value for key, value in identity.items()}
    # A cost-aware drafter's "engine" was what its tokens are priced by, TARGET@PROFILE, where eager modules ran.
    if "@" in str(found.get("backend", "")):
        found["pricing"] = found.pop("backend")
    # Where graphs ran, "graph" stood in its place; the name has it too: dllm_0.05_ca_60_TARGET@PROFILE.
    if pricing := str(found.get("drafter")).partition("_ca_")[2].partition("_")[2]:
        found.setdefault("pricing", pricing)
    for key, usual, form in NAME_ENDS:
        drafter, ending = str(found.get("drafter")), form.format(found.get(key, usual))
        if found.get(key, usual) != usual and ending not in drafter:
            found["drafter"] = drafter + ending
    name = found.get("drafter")
    return found | {"drafter": current_name(name)} if isinstance(name, str) else found


def current_name(name: str) -> str:
    """A drafter's or a chain's name as it is spelled now. Example: `current_name("dllm_1_sf_8") == "dllm_1.0_sf_8"`."""
    return _renamed(_WHOLE, name, ".0")


def _renamed(pattern: re.Pattern[str], name: str, ending: str = "") -> str:
    """`name` with `ending` after what `pattern` finds: an unmask threshold, then a tau after it."""
    for _ in range(2):
        name = pattern.sub(rf"\g<1>{ending}", name)
    return name


def first_difference(stored: dict[str, Any], asked: dict[str, Any]) -> str | None:
    """`"seed: stored 0, asked 1"` for the first key that differs, in the order of `asked`, digests last; else None."""
    stored, asked = pickles.plain(stored), pickles.plain(asked)
    for key in sorted(asked | stored, key=lambda key: str(key).endswith("_sha256")):
        if key not in stored or key not in asked or not fields.is_same(stored[key], asked[key]):
            return f"{key}: stored {fields.shown(stored, key)}, asked {fields.shown(asked, key)}"
    return None


def prompt_sha256(prompt_ids: Sequence[int]) -> str:
    return hashlib.sha256(json.dumps(prompt_ids).encode()).hexdigest()
