"""Grids: lists of settings that one flag asks for. Not the products of the sweep flags (`config.py`)."""

from specdec.specs import ArStatic, DllmStatic, DrafterSpec, FailFast

_THRESHOLDS = tuple(percent / 100 for percent in range(5, 100, 5))

# The sweeps of the FailFast paper (arXiv 2512.20573): 8 lengths of the AR drafter, 19 unmask thresholds at length 8 and
# 12 more lengths of the static dLLM drafter, 19 values of tau, 7 of N_max (of which 60 stands among the taus' already).
PAPER: tuple[DrafterSpec, ...] = (
    *(ArStatic(length) for length in (3, 4, 5, 6, 8, 10, 12, 15)),
    *(DllmStatic(threshold, 8) for threshold in _THRESHOLDS),
    *(DllmStatic(0.05, length) for length in (2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 20, 25)),
    *(FailFast(0.05, tau, 60, 10) for tau in _THRESHOLDS),
    *(FailFast(0.05, 0.45, longest, 10) for longest in (10, 20, 30, 40, 50, 70)),
)
GRIDS = {"paper": PAPER}
