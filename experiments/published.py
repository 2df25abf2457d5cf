"""Published: acceptance lengths of drafters by data set, and how fast they were, as their authors say. Data alone.

An acceptance length is the mean number of tokens a round, the target's own included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

PAGE = "JetSpec's page, arXiv 2606.18394"
SETS = ("GSM8K", "MATH-500", "AIME25", "HumanEval", "MBPP", "LCB", "MT-Bench")


@dataclass(frozen=True)
class Published:
    """What was published of one drafter on one data set: its mean acceptance length, and how fast it was (None: not
    said); `hardware` and `baseline` say where, and against what the speedup is."""

    head: str
    drafter: str
    dataset: str
    acceptance_length: float
    speedup: float | None = None
    tokens_per_s: float | None = None
    hardware: str = "H100, the authors' loop in Hugging Face modules"
    source: str = PAGE


def _of_page(head: str, drafter: str, cells: Sequence[tuple[float, float]]) -> list[Published]:
    return [Published(head, drafter, name, al, speedup) for name, (speedup, al) in zip(SETS, cells, strict=True)]


def _of_engine(
    head: str, drafter: str, cells: Sequence[tuple[float, float]], rates: Sequence[float]
) -> list[Published]:
    """The same, with tokens a second of the authors' own engine."""
    known = zip(_of_page(head, drafter, cells), rates, strict=True)
    return [replace(one, tokens_per_s=rate, hardware="B200, the authors' engine in graphs") for one, rate in known]


def _of_bundle(dataset: str, speedup: float, acceptance_length: float) -> Published:
    return Published("eagle3", "eagle3_sf_7", dataset, acceptance_length, speedup, None, "not said", "SpecBundle")


# The page counts a tree's root, the last known token, among its nodes (JetSpec's tree/baselines/accum_logp.py).
_B200 = (984, 1150, 849, 867, 789, 684, 545)  # of the same sets
_JETSPEC = ((7.82, 8.62), (9.64, 10.76), (8.78, 9.82), (7.12, 7.78), (6.73, 7.43), (7.67, 8.79), (4.58, 5.94))
_QWEN3_8B = [
    *_of_engine("jetspec", "dflash_tree_255", _JETSPEC, _B200),
    *_of_page(
        "dflash",
        "dflash_tree_255",
        ((7.04, 7.77), (8.78, 9.81), (8.33, 9.24), (6.31, 6.96), (6.09, 6.70), (6.75, 7.72), (4.26, 5.41)),
    ),
    *_of_page(
        "dflash",
        "dflash_tree_63",
        ((5.63, 6.18), (6.51, 7.16), (6.40, 6.96), (5.08, 5.57), (4.99, 5.49), (5.47, 6.06), (3.74, 4.51)),
    ),
    *_of_page(
        "eagle3",
        "eagle3_tree_8_10_64",
        ((2.53, 4.31), (2.36, 4.13), (2.35, 4.04), (2.49, 4.26), (2.22, 3.81), (2.09, 3.62), (2.19, 3.88)),
    ),
    Published("dflash", "dflash_sf_15", "GSM8K", 6.35, hardware="H200, SGLang", source="sglang#16818"),
]
PUBLISHED: dict[str, list[Published]] = {
    "Qwen3-8B": _QWEN3_8B,
    "Llama-3.1-8B-Instruct": [
        Published("dflash", "dflash_sf_15", "chat", 6.1, 430 / 90, 430, "RTX 6000 Blackwell", "NVIDIA forum"),
        _of_bundle("MATH-500", 3.34, 5.40),
        _of_bundle("HumanEval", 2.99, 4.91),
        _of_bundle("MT-Bench", 2.39, 3.91),
        _of_bundle("GSM8K", 1.81, 2.85),
    ],
    "tiny-qwen3": [_QWEN3_8B[1], _QWEN3_8B[21], _QWEN3_8B[-1]],
}
