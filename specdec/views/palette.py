"""Palette: how drafters look and what they are called, in every figure and in the HTML report.

Hue and marker are the kind of drafter; lightness and the length of the dashes are the draft length (longer is darker,
with longer dashes); the dashes between them are its other settings. So one drafter looks the same everywhere, and two
never look alike. Hues are Okabe and Ito's, which colour-blind people can tell apart (jfly.uni-koeln.de/color). Not
here: anything of matplotlib or the page.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from specdec.drafters.base import Spec
from specdec.drafters.families import kind_of_chains, kinds, known_spec, parse_name

BLACK, GREY, WHITE = "#000000", "#767676", "#FFFFFF"
ORANGE, SKY, BLUE, VERMILLION = "#E69F00", "#56B4E9", "#0072B2", "#D55E00"
_LENGTHS = ("draft_len", "max_draft_len", "tree_nodes")
_MIDDLE = 10  # tokens: a draft of this length has the hue of its kind
_LIGHTER, _DARKER = 1.6, 1.0  # how far from it the shortest and the longest draft are: half of these


@dataclass(frozen=True)
class Look:
    """How a drafter's marks and lines look: `marker` and `line` as matplotlib has them."""

    colour: str
    marker: str
    line: str | tuple[float, tuple[float, ...]] = "-"


@dataclass(frozen=True)
class Kind:
    """What a legend says of drafters that no family here has; a family's specs have attributes of the same names."""

    kind: str
    title: str
    hue: str
    marker: str


OTHER = Kind("other", "other", GREY, "X")  # such as a server's own drafting
REFERENCE = Look(GREY, "d", (0, (2, 1)))  # what others published, of several kinds
# Looks of what is told apart by its name and not by its kind: heads that were trained alike, say.
SERIES = (
    *(Look(BLUE, "o"), Look(VERMILLION, "s"), Look(BLACK, "D")),
    *(Look(ORANGE, "^"), Look(SKY, "v"), Look(GREY, "P")),
)


def legend() -> tuple[type[Spec] | Kind, ...]:
    """Every kind of drafter, in the order of legends; OTHER last."""
    return (*kinds().values(), OTHER)


def kind_of(drafter_name: str) -> type[Spec] | Kind:
    spec = known_spec(drafter_name)
    return OTHER if spec is None else type(spec)


def short(kind: type[Spec] | Kind) -> str:
    """Its title without how its lengths are chosen: "AR"."""
    return kind.title.partition(",")[0]


def label_of(drafter_name: str) -> str:
    """A drafter in words. Example: `label_of("ar_None_sf_8") == "AR, static 8"`. UserError for no drafter's name."""
    return parse_name(drafter_name).label


def look(spec: Spec) -> Look:
    """The look of a drafter."""
    return family_look(type(spec), vars(spec))


def look_of(drafter_name: str) -> Look:
    """The same by its name, which may be one that no drafter here has."""
    spec = known_spec(drafter_name)
    return look(spec) if spec else Look(OTHER.hue, OTHER.marker, (0, (0.5 + 3.0 * _share(drafter_name), 1.2)))


def family_look(kind: type[Spec], settings: Mapping[str, Any] | None = None) -> Look:
    """The look of all drafters of a kind that have these settings: its hue where they do not fix the length."""
    settings = settings or {}
    usual = {one.name: one.default for one in fields(kind)}
    length = next((settings[name] for name in _LENGTHS if name in settings), None)
    dashes = [] if length is None else [1.0 + 9.0 * length / (length + _MIDDLE)]
    others = [value for name, value in settings.items() if name not in _LENGTHS and value != usual[name]]
    dashes += [0.5 + 3.0 * _share(value) for value in others]
    line = tuple(part for dash in dashes for part in (dash, 1.2))
    colour = kind.hue if length is None else shaded(kind.hue, length)
    return Look(colour, kind.marker, (0, line) if others or length is not None else "-")


def reference(kind: type[Spec]) -> Look:
    """The look of what others published of a kind: grey, with the kind's mark."""
    return Look(REFERENCE.colour, kind.marker, REFERENCE.line)


def chains_label(name: str) -> str:
    """Recorded chains in words. Examples: `chains_label("ar") == "AR"`, `chains_label("dllm_0.9") == "dLLM 0.9"`."""
    return " ".join(filter(None, (short(kind_of_chains(name)), name.partition("_")[2])))


def shaded(hue: str, length: float) -> str:
    """The hue of a draft length: lighter for short drafts, darker for long ones."""
    place = length / (length + _MIDDLE) - 0.5
    return mixed(hue, WHITE, -place * _LIGHTER) if place < 0 else mixed(hue, BLACK, place * _DARKER)


def mixed(colour: str, other: str, share: float) -> str:
    """A colour with a share of another in it. Example: `mixed("#000000", "#FFFFFF", 0.5) == "#808080"`."""
    parts = [[int(one[begin : begin + 2], 16) for begin in (1, 3, 5)] for one in (colour, other)]
    return "#" + "".join(f"{round(a + (b - a) * share):02X}" for a, b in zip(*parts, strict=True))


def _share(value: object) -> float:
    """A setting as a number from 0 to 1, the greater the greater; of a word, any that stays the same."""
    if isinstance(value, int | float):
        return value if value <= 1 else value / (value + _MIDDLE)
    return zlib.crc32(str(value).encode()) / 2**32
