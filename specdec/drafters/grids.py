"""Grids: lists of drafters that one flag asks for, by name. Families make the products of the sweep flags."""

from __future__ import annotations

from functools import cache

from specdec.drafters.base import Spec
from specdec.drafters.families import parse_name

_THRESHOLDS = tuple(f"{percent / 100}" for percent in range(5, 100, 5))

# The sweeps of the FailFast paper (arXiv 2512.20573): 8 lengths of the AR drafter, 19 unmask thresholds at length 8 and
# 12 more lengths of the static dLLM drafter, 19 values of tau, 7 of N_max (of which 60 stands among the taus' already).
_PAPER = (
    *(f"ar_None_sf_{length}" for length in (3, 4, 5, 6, 8, 10, 12, 15)),
    *(f"dllm_{threshold}_sf_8" for threshold in _THRESHOLDS),
    *(f"dllm_0.05_sf_{length}" for length in (2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 20, 25)),
    *(f"dllm_0.05_df_{tau}_60_10" for tau in _THRESHOLDS),
    *(f"dllm_0.05_df_0.45_{longest}_10" for longest in (10, 20, 30, 40, 50, 70)),
)


@cache
def paper() -> tuple[Spec, ...]:
    """The 64 settings of the paper's sweeps."""
    return tuple(map(parse_name, _PAPER))


GRIDS = {"paper": paper}
