"""Sampled speculation is lossless: the exact distribution of the target's next three tokens comes out, for every kind
of drafter, and the same test finds bugs that make it another one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from laws import MODEL_FREE, PROMPT, SPECS, TEXTS, all_drafts, come_out, exact_law, make_drafter, p_value, tiny_models

from specdec.decoding import sampling
from specdec.decoding.loop import speculate
from specdec.decoding.sampled import SampledLM, SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.stopping import Draft
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic
from specdec.models.lm import CachedLM
from specdec.models.taps import Taps

pytestmark = pytest.mark.slow
NUM_SAMPLES, FEW_SAMPLES = 200_000, 20_000  # a tenth finds a planted bug already
POINTS = [*MODEL_FREE, "eagle3_sf", "eagle3_df", "dflash_sf", "dflash_df"]  # whose drafts are never drawn
DRAWING = [kind for kind in SPECS if kind not in ("plain", *POINTS)]
KINDS = [("plain", False), *((kind, False) for kind in POINTS), *itertools.product(DRAWING, (False, True))]
WARPS = [Warp(*each) for each in itertools.product((0.7, 1.0), (0, 3), (1.0, 0.8))]
BUGS = {
    "one token too many": (
        "count_kept",
        lambda right: lambda kept_BL: (right(kept_BL) + 1).clamp(max=kept_BL.shape[1]),
    ),
    "not from the residual": (
        "remainder",
        lambda _: lambda p_BKV, *rest: p_BKV[torch.arange(len(p_BKV)), rest[-1]],
    ),
}


@pytest.fixture(autouse=True)
def _threads(one_thread) -> None:
    """Toy matrices."""


def name_of(value: object) -> str | None:
    return f"{value.temperature}-{value.top_k}-{value.top_p}" if isinstance(value, Warp) else None


@pytest.mark.parametrize("warp", WARPS, ids=name_of)
@pytest.mark.parametrize(("kind", "is_sampled"), KINDS)
def test_the_targets_law_comes_out(kind: str, is_sampled: bool, warp: Warp) -> None:
    law = exact_law(warp)
    assert law.sum() == pytest.approx(1, abs=1e-5) and (law > 1e-3).sum() >= 5
    counts = come_out(kind, is_sampled, warp, num_samples=NUM_SAMPLES, seed=1)
    assert counts.sum() == NUM_SAMPLES
    assert p_value(counts, law) > 1e-3


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize(("kind", "is_sampled"), KINDS[1:])
def test_planted_bugs_are_found(kind: str, is_sampled: bool, bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, planted = BUGS[bug]
    monkeypatch.setattr(sampling, name, planted(getattr(sampling, name)))
    warp = Warp(1.0)
    counts = come_out(kind, is_sampled, warp, num_samples=FEW_SAMPLES, seed=1)
    assert p_value(counts, exact_law(warp)) < 1e-6


def in_earnest(kind: str, is_sampled: bool, warp: Warp, num_samples: int, *, has_one_stream: bool = True):
    """Counts of TEXTS, by the loop, the target and the drafters themselves, one question after the other."""
    counts = torch.zeros(len(TEXTS), dtype=torch.long)
    places = {text: index for index, text in enumerate(TEXTS)}
    for number in range(num_samples):
        sampler = Sampler(warp, f"{kind} {number}")
        theirs = sampler if has_one_stream else Sampler(warp, f"{kind} {number}")
        target, drafter = (
            SampledTarget(tiny_models()["target"], sampler),
            make_drafter(kind, theirs if is_sampled else None),
        )
        rounds = speculate(target, drafter, PROMPT, max_new_tokens=5, stop_ids=())
        counts[places[tuple(token for made in rounds for token in made.emitted_tokens)[:3]]] += 1
    return counts


@pytest.mark.parametrize(
    ("kind", "is_sampled"),
    [("plain", False), ("suffix", False), ("hybrid", True), ("ar_df", True), ("dllm_sf", True), ("failfast", False)],
)
def test_the_loop_draws_from_that_law_too(kind: str, is_sampled: bool) -> None:
    warp = Warp(0.9, top_k=3)
    assert p_value(in_earnest(kind, is_sampled, warp, 1000), exact_law(warp)) > 1e-3


def test_two_streams_of_one_seed_would_not() -> None:
    """A token proposed and judged by the same random number."""
    warp = Warp(0.9, top_k=3)
    assert p_value(in_earnest("ar_df", True, warp, 1000, has_one_stream=False), exact_law(warp)) < 1e-6


# ---- a block-diffusion draft under the ratio rule ------------------------------------------------------------

MASK = 3
LEFT, RIGHT = 1, 2  # positions; the prefix is one token, and all three are one block
P_LEFT, P_RIGHT = [0.4, 0.4, 0.2], [0.3, 0.5, 0.2]  # the target's, whatever stands before


class TableLM(CachedLM):
    """A dLLM of three words over two masked positions: `left` maps the right one's token (or MASK) to the left one's
    probabilities, `right` likewise."""

    def __init__(self, left: dict[int, list[float]], right: dict[int, list[float]]) -> None:
        self.device, self.tokens, self.predictions, self._pending = torch.device("cpu"), [], {}, []
        self._block_size, self._num_rows, self._taps = 1, MASK + 1, Taps(None, None)
        self.left, self.right = left, right

    def _run(self, tokens: list[int], block_size: int, keep: Sequence[int] | None) -> torch.Tensor:
        rows = {LEFT: self.left[tokens[RIGHT]], RIGHT: self.right[tokens[LEFT]]}
        return torch.tensor([[*rows[i + 1], 0.5] for i in keep]).log()


class RowsNoted(SampledLM):
    """Notes what each position was drawn from, the last time that it was."""

    def predict(self, tokens: Sequence[int], *, keep: Sequence[int], **how: object) -> tuple[list[int], list[float]]:
        found = super().predict(tokens, keep=keep, **how)
        self.rows = getattr(self, "rows", {}) | {i + 1: row for i, row in zip(keep, self.drawn_from, strict=True)}
        return found


def drafts_of_two(lm: TableLM) -> list[tuple[Draft, float]]:
    """All drafts of two tokens, each with the rows that a rule which trusts the model's probabilities would use."""

    def draft(sampler: Sampler) -> Draft:
        noted = RowsNoted(lm, sampler)
        settings = BlockSettings(MASK, (), block_size=3, small_block_size=3)
        drafter = DllmDrafter(noted, DllmStatic(0.999, 2), settings)
        drafter.reset()
        made = drafter.propose([0], 2)
        assert made.drawn_from is None  # the program itself claims nothing
        made.drawn_from = torch.stack([noted.rows[LEFT], noted.rows[RIGHT]])[:, :MASK]
        return made

    return all_drafts(Warp(1.0), draft)


def two_tokens_p_value(drafts: list[tuple[Draft, float]], *, is_ratio: bool) -> float:
    """That of the first two tokens of 200,000 answers having the target's law."""
    generator = torch.Generator().manual_seed(3)
    chosen_B = torch.tensor([chance for _, chance in drafts]).multinomial(NUM_SAMPLES, True, generator=generator)
    draft_BL = torch.tensor([draft.tokens for draft, _ in drafts])[chosen_B]
    q_BLV = torch.stack([draft.drawn_from for draft, _ in drafts])[chosen_B] if is_ratio else None
    p_BKV = torch.tensor([P_LEFT, P_RIGHT, P_RIGHT]).expand(NUM_SAMPLES, 3, 3)
    uniforms_BK = torch.rand(NUM_SAMPLES, 4, generator=generator, dtype=torch.float64)
    found = sampling.judge(p_BKV, draft_BL, q_BLV, uniforms_BK[:, :3])
    texts_BK = torch.nn.functional.pad(draft_BL, (0, 1))
    texts_BK = texts_BK.scatter(1, found.accepted_len_B[:, None], found.next_token_B[:, None])
    next_round_B = sampling.drawn(p_BKV[:, 1], uniforms_BK[:, 3])
    second_B = texts_BK[:, 1].where(found.accepted_len_B > 0, next_round_B)
    counts = torch.bincount(3 * texts_BK[:, 0] + second_B, minlength=9)
    return p_value(counts, torch.outer(torch.tensor(P_LEFT), torch.tensor(P_RIGHT)).flatten())


def alike(row: list[float]) -> dict[int, list[float]]:
    """The same probabilities, whatever the other token is."""
    return dict.fromkeys((0, 1, 2, MASK), row)


THIRDS = [1 / 3, 1 / 3, 1 / 3]
COPIES = {0: [0.9, 0.05, 0.05], 1: [0.05, 0.9, 0.05], 2: THIRDS, MASK: THIRDS}
BIASED = {
    # The right token is always the surer one, so it is drawn first, and the left one then mostly copies it.
    "right before left": (COPIES, alike([0.5, 0.5, 0.0])),
    # No token depends on the other, but an improbable left token gives way to the right one and is drawn again.
    "probable tokens first": (alike([0.7, 0.2, 0.1]), alike([0.5, 0.5, 0.0])),
}


@pytest.mark.parametrize("case", BIASED)
def test_a_dllms_own_probabilities_are_not_what_the_ratio_rule_needs(case: str) -> None:
    drafts = drafts_of_two(TableLM(*BIASED[case]))
    assert two_tokens_p_value(drafts, is_ratio=True) < 1e-6
    assert two_tokens_p_value(drafts, is_ratio=False) > 1e-3


def test_they_are_where_it_draws_left_to_right() -> None:
    """The same test lets the ratio rule pass where it holds: the left token is always the surer one."""
    drafts = drafts_of_two(TableLM(alike([0.5, 0.5, 0.0]), COPIES))
    assert two_tokens_p_value(drafts, is_ratio=True) > 1e-3
