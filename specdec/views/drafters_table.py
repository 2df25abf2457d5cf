"""Drafters' table: what a ranking says of each drafter itself, so that acceptance lengths are compared knowingly: its
model, what a pass reads, how many it takes, where it is from. As text, as data, and as facts on a page.

What each column is for: docs/comparing-drafters.md.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from specdec.models.card import KEYS
from specdec.ranking.entries import Entry
from specdec.ranking.ranking import by_drafter
from specdec.runs.drafter_facts import DrafterFacts, facts_of
from specdec.runs.footprint import Footprint
from specdec.text import count_text, named, size_text, visible
from specdec.views.view import ALL, View

_SIZES = ("num_parameters", "weight_bytes_per_pass", "kv_bytes_per_token")
_HEAD = (
    *("drafter", "model", "parameters", "weights a pass", "KV cache a token", "passes a round", "block", "thinking"),
    *("training data", "made for or from"),
)
_TEXT_WIDTH = 40  # columns of a model's name and of what a card says, in text; data has all of it
_UNKNOWN, _NOT_SAID, _OF_TEMPLATE = "unknown", "not said", "template's"
_LEGEND = (
    "Acceptance lengths count the bonus, of all drafters. Weights a pass: all of the drafter's own, read once. "
    "Training data, made for or from: as the checkpoint's card says. Unknown: the run did not record it."
)


def drafters_document(facts: Sequence[DrafterFacts], stats: Sequence[Entry]) -> list[dict[str, Any]]:
    """Of each drafter that is ranked, by name; None for what is not known, 0 where there is no model. `card`: None: not
    looked at; a None in it: it does not say. Of whom different folders say different things, each."""
    ranked = sorted(by_drafter(stats).items())
    known = {name: [one for one in facts if one.drafter_name == name] for name, _ in ranked}
    return [_document(one, own) for name, own in ranked for one in known[name] or [facts_of(name)]]


def _document(one: DrafterFacts, entries: Sequence[Entry]) -> dict[str, Any]:
    thinking = sorted({entry.source.thinking for entry in entries})
    return {
        "drafter_name": one.drafter_name,
        **_model(one),
        "passes_per_round": _passes(entries),
        "block_size": one.block_size,
        "thinking": ", ".join(how or _OF_TEMPLATE for how in thinking),
        "acceptance_len_counts_bonus": True,
    }


def _model(one: DrafterFacts) -> dict[str, Any]:
    model, none = one.model or Footprint("", ""), 0 if one.has_model is False else None
    sizes = model.num_parameters, model.weight_bytes, model.kv_bytes_per_token
    return {
        "has_model": one.has_model,
        "model": model.name or None,
        "dtype": model.dtype or None,
        **{name: none if size is None else size for name, size in zip(_SIZES, sizes, strict=True)},
        "card": {key: getattr(model, key) for key in KEYS} if model.has_card else None,
    }


def _passes(entries: Sequence[Entry]) -> float | None:
    num_rounds = sum(one.num_rounds for one in entries)
    return sum(one.num_forward_passes for one in entries) / num_rounds if num_rounds else None


def drafters_table(facts: Sequence[DrafterFacts], stats: Sequence[Entry], view: View = ALL) -> str:
    """The same as text; "" without facts."""
    if not facts:
        return ""
    rows = [[visible(one["drafter_name"]), *_cells(one)] for one in drafters_document(facts, stats)]
    return "\n".join(["Drafters", *view.table([_HEAD, *rows], 2), view.wrapped(_LEGEND)])


def fact_pairs(one: Mapping[str, Any]) -> list[tuple[str, str]]:
    """An entry of `drafters_document` as pairs of a value and what it is."""
    if one["has_model"] is False:
        return [("no model", ""), (_passes_text(one), "passes a round")]
    said = dict(zip(_HEAD[1:], _cells(one), strict=True))
    said["block"] = "" if said["block"] == "-" else said["block"]
    return [(value, title) for title, value in said.items() if value]


def _cells(one: Mapping[str, Any]) -> list[str]:
    has_none = one["has_model"] is False
    model = "none" if has_none else _end(visible(one["model"] or _UNKNOWN))
    sizes = [_shown(one[name], text) for name, text in zip(_SIZES, (count_text, size_text, size_text), strict=True)]
    card = ["-", "-"] if has_none else [_said(one["card"], key) for key in KEYS]
    block = "-" if one["block_size"] is None else f"{one['block_size']}"
    return [model, *(["-"] * 3 if has_none else sizes), _passes_text(one), block, one["thinking"], *card]


def _end(name: str) -> str:
    """Of a long name its end: folders begin alike."""
    return name if len(name) <= _TEXT_WIDTH else f"~{name[1 - _TEXT_WIDTH :]}"


def _shown(value: float | None, text: Any) -> str:
    return _UNKNOWN if value is None else str(text(value))


def _passes_text(one: Mapping[str, Any]) -> str:
    return "-" if one["passes_per_round"] is None else f"{one['passes_per_round']:.2f}"


def _said(card: Mapping[str, str | None] | None, key: str) -> str:
    return _UNKNOWN if card is None else named(card[key] or _NOT_SAID, _TEXT_WIDTH)
