"""Heads' grids: the settings that a drafter is tuned over, by policy, from the chains that were recorded of it.

Measures nothing: `heads_table.py` does.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import DllmStatic, FailFast, threshold_of
from specdec.drafters.dflash import DflashDynamic, DflashStatic
from specdec.drafters.eagle3 import Eagle3Dynamic, Eagle3Static
from specdec.drafters.families import kind_of_chains

STATIC, RULE, BY_COST = "static", "FailFast's rule", "cost-aware"  # the policies, as tables spell them
TAUS = tuple(percent / 100 for percent in range(5, 100, 5))
STEPS = (1, 2, 4)  # of drafters whose tokens come one by one or all at once
FIRST_WINDOWS, WINDOW_STEPS, N_MAX, LONGEST = (6, 8, 9, 10), (8, 10), 60, 24  # of block diffusion
Kinds = tuple[Callable[[int], Spec], Callable[[float, int, int], Spec]]  # of a length; of tau, N_max and N
KINDS: dict[type[Spec], Kinds] = {
    ArStatic: (ArStatic, ArDynamic),
    Eagle3Static: (Eagle3Static, Eagle3Dynamic),
    DflashStatic: (DflashStatic, DflashDynamic),
}


def grids(chains_name: str, longest: int) -> dict[str, list[Spec]]:
    """The settings over chains of this name that are `longest` tokens long: policy -> what is tried. {} for chains of
    other drafters. The policy by cost is not among them: it is learnt and has no grid. UserError for chains of none."""
    kind = kind_of_chains(chains_name)
    if kind is DllmStatic:
        return _block_diffusion(threshold_of(chains_name), longest)
    if kind not in KINDS:
        return {}
    static, dynamic = KINDS[kind]
    return {
        STATIC: [static(length) for length in range(1, longest + 1)],
        RULE: [dynamic(tau, longest, step) for tau, step in product(TAUS, STEPS)],
    }


def _block_diffusion(threshold: float, longest: int) -> dict[str, list[Spec]]:
    windows = product(TAUS[1::2], WINDOW_STEPS, FIRST_WINDOWS)
    rules = [FailFast(threshold, tau, N_MAX, step, first_window=first) for tau, step, first in windows]
    return {
        STATIC: [DllmStatic(threshold, length) for length in range(1, min(longest, LONGEST) + 1)],
        RULE: [spec for spec in rules if spec.chain_len({}) <= longest],
    }
