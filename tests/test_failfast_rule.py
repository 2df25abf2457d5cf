"""FailFast's rule and static drafting against a second implementation written from the rule's text, live and replayed.

The model is made up (`planted.py`), so that a thousand drafts take seconds and nothing depends on rounding.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import pytest
from planted import MASK_ID, PlantedLM, PlantedModel
from reference import Guess, Outcome, Rules, Window, failfast_draft, static_draft

from specdec.decoding.chain_blocks import Answer, ChainBlocks
from specdec.decoding.chains import Chain, Chains
from specdec.decoding.denoising import Denoising, LiveBlocks, masked_positions
from specdec.decoding.stopping import Draft, FailFastWindow, FixedWindow, Run, finish_draft
from specdec.drafters.block_diffusion import FailFast
from specdec.drafters.block_drafter import RecordedRun, confidences_again
from specdec.records.rounds import Round

NUM_DRAFTS = 1000
BLOCK_SIZES = (8, 16, 24, 32, 48, 64)
STOP_IDS = (90, 91)


@dataclasses.dataclass(frozen=True)
class Case:
    """A draft to be made; `window` is None where it is static."""

    model: PlantedModel
    prefix: list[int]
    rules: Rules
    draft_len: int
    window: Window | None


def random_case(seed: int, *, is_static: bool = False) -> Case:
    rng = random.Random(f"rule {seed}")
    block_size = rng.choice(BLOCK_SIZES)
    small = rng.choice([size for size in (2, 4, 8, 16) if block_size % size == 0])
    stop_rate = rng.choice((0.0, 0.02, 0.1))
    model = PlantedModel(seed, stop_ids=STOP_IDS, stop_rate=stop_rate, ease=rng.choice((0.3, 0.9, 0.99)))
    length = rng.choice((1, block_size - 1, block_size, block_size + 1, 2 * block_size, rng.randint(1, 160)))
    prefix = [rng.randrange(8) for _ in range(min(length, 160))]
    threshold = rng.choice((0.0, 0.05, 0.3, 0.5, 0.9, 1.0))
    rules = Rules(MASK_ID, frozenset(STOP_IDS), threshold, block_size, small)
    if is_static:
        return Case(model, prefix, rules, rng.randint(1, 80), None)
    window = Window(
        first=rng.choice((1, 5, 8, 10, rng.randint(1, 40))),
        tau=rng.choice((0.0, 0.05, 0.3, 0.5, 1.0)),
        step=rng.choice((1, 4, 10, rng.randint(1, 40))),
        maximum=rng.choice((1, 10, 60, rng.randint(1, 100))),
        rule=rng.choice(("published", "published", "strict")),
    )
    if rng.random() < 0.5:  # last round's tail holds an end of the draft that will be drafted
        draft = failfast_draft(model, prefix, window, rules).tokens
        tail = [rng.choice((3, 90))] * rng.randint(0, 3) + draft[-rng.randint(1, 6) :] + [1, 2, rng.choice((3, 91)), 4]
        window = dataclasses.replace(window, rejected=tuple(tail))
    return Case(model, prefix, rules, 0, window)


def expected(case: Case) -> Outcome:
    if case.window is None:
        return static_draft(case.model, case.prefix, case.draft_len, case.rules)
    return failfast_draft(case.model, case.prefix, case.window, case.rules)


def how_of(case: Case) -> Denoising:
    rules = case.rules
    return Denoising(rules.threshold, rules.block_size, rules.small_block_size, MASK_ID, rules.stop_ids)


def finished(case: Case, run: Run) -> Draft:
    rule = case.window
    if rule is None:
        return finish_draft(run, FixedWindow(case.draft_len))
    window = FailFastWindow(rule.first, rule.tau, rule.step, rule.maximum, rule.rule)
    return finish_draft(run, window, last_round_rejected=rule.rejected, stop_ids=case.rules.stop_ids)


def chain_len_of(case: Case) -> int:
    """What a recording of these settings holds."""
    if case.window is None:
        return case.draft_len
    rule = case.window
    spec = FailFast(case.rules.threshold, rule.tau, rule.maximum, rule.step, rule.first, rule.rule)
    return spec.chain_len({"block_size": case.rules.block_size, "small_block_size": case.rules.small_block_size})


def chain_of(case: Case) -> tuple[Chain, int]:
    """A recorded chain, through its arrays, and the prefill passes of a fresh cache."""
    size, small = case.rules.block_size, case.rules.small_block_size
    whole = len(case.prefix) // size * size
    (first,) = case.model(case.prefix[:whole], [whole]) if whole else (None,)
    path = tuple(range(whole // size))
    blocks = ChainBlocks(case.prefix, how_of(case), path, first and (first.token, first.probability))
    while blocks.num_known < chain_len_of(case):
        start, masked = len(blocks.path) * size, masked_positions(blocks.block, small)
        shown = [MASK_ID if token is None else token for token in blocks.ids]
        guesses = case.model(shown, [start + index for index in masked or [size]])
        page = None if masked else len(blocks.path)
        blocks.take(Answer(masked, [g.token for g in guesses], [g.probability for g in guesses], page))
    packed = Chains.pack("dllm", {}, chain_len_of(case), [blocks.chain()])
    packed.check()
    return packed.chains[0], int(whole > 0)


def replayed(case: Case) -> Draft:
    chain, num_prefills = chain_of(case)
    stops = [index for index, token in enumerate(chain.tokens) if token in case.rules.stop_ids]
    return finished(case, RecordedRun(chain, len(case.prefix), stops[0] + 1 if stops else None, num_prefills))


def assert_equal(draft: Draft, want: Outcome, note: object) -> None:
    assert draft.tokens == want.tokens, note
    assert vars(draft.passes) == {kind: getattr(want, kind) for kind in ("prefill", "denoise", "commit")}, note
    assert draft.stop_reason == want.stop_reason, note
    assert draft.confidences == want.confidences, note


def test_a_thousand_drafts_equal_the_rules_text_live_and_replayed() -> None:
    """Tokens, passes by kind, stop reasons and confidences."""
    outcomes = []
    for seed in range(NUM_DRAFTS):
        case = random_case(seed)
        want = expected(case)
        assert_equal(finished(case, LiveBlocks(PlantedLM(case.model), case.prefix, how_of(case))), want, seed)
        assert_equal(replayed(case), want, seed)
        outcomes.append((case, want))
    _assert_cases_are_telling(outcomes)


def _assert_cases_are_telling(outcomes: list[tuple[Case, Outcome]]) -> None:
    few = NUM_DRAFTS // 20
    for reason in ("low_confidence", "max_len", "stop_token"):
        assert sum(want.stop_reason == reason for _, want in outcomes) >= few, reason
    assert sum(want.reused > 0 for _, want in outcomes) >= few
    assert sum(want.commit > 0 for _, want in outcomes) >= few
    assert sum(len(want.tokens) > case.window.first for case, want in outcomes) >= few
    assert sum(want.stop_reason == "stop_token" and want.denoise == 0 for _, want in outcomes) >= 3
    ends = [(len(case.prefix) + len(want.tokens)) % case.rules.block_size for case, want in outcomes]
    assert ends.count(1) >= few // 2  # the last token is a block's first


def test_static_drafts_equal_the_rules_text_live_and_replayed() -> None:
    for seed in range(NUM_DRAFTS // 5):
        case = random_case(seed, is_static=True)
        want = expected(case)
        assert_equal(finished(case, LiveBlocks(PlantedLM(case.model), case.prefix, how_of(case))), want, seed)
        assert_equal(replayed(case), want, seed)


def test_what_the_published_rule_records_gives_each_tokens_confidence_again() -> None:
    """The trajectory view shows them: those with which tokens were unmasked, none for a block's first."""
    num_told = 0
    for seed in range(NUM_DRAFTS // 5):
        case = random_case(seed)
        if case.window.rule != "published":
            continue
        blocks = LiveBlocks(PlantedLM(case.model), case.prefix, how_of(case))
        draft = finished(case, blocks)
        turn = round_of(case, draft)
        rule = case.window
        window = FailFastWindow(rule.first, rule.tau, rule.step, rule.maximum, rule.rule)
        found = confidences_again(turn, window, how_of(case))
        for index, (token, one) in enumerate(zip(draft.token_confidences, found, strict=True)):
            is_first = (len(case.prefix) + index) % case.rules.block_size == 0
            assert one == (None if is_first else token), seed
            num_told += one is not None
    assert num_told > NUM_DRAFTS


def round_of(case: Case, draft: Draft) -> Round:
    passes = draft.passes.prefill, draft.passes.denoise, draft.passes.commit
    return Round(len(case.prefix), draft.tokens, draft.confidences, *passes, draft.stop_reason, 0, 1, 0.0, 0.0)


# ---- single sentences of the rule ---------------------------------------------------------------------------


class Script(PlantedModel):
    """Says 1 everywhere but where `tokens` says otherwise, always equally surely: all masks of a sub-block at once."""

    def __init__(self, tokens: dict[int, int]) -> None:
        super().__init__(0)
        self.tokens = tokens

    def __call__(self, shown: Sequence[int], positions: Sequence[int]) -> list[Guess]:
        return [Guess(self.tokens.get(at, 1), 0.9) for at in positions]


def scripted(tokens: dict[int, int], prefix_len: int, window: Window | int) -> tuple[int, tuple[int, int], str]:
    """Length, denoising and commit passes, and stop reason of a draft in blocks of 8 with sub-blocks of 4."""
    rules = Rules(MASK_ID, frozenset(STOP_IDS), 0.5, 8, 4)
    is_static = isinstance(window, int)
    case = Case(Script(tokens), [1] * prefix_len, rules, window if is_static else 0, None if is_static else window)
    draft = finished(case, LiveBlocks(PlantedLM(case.model), case.prefix, how_of(case)))
    assert_equal(draft, expected(case), window)
    return len(draft.tokens), (draft.passes.denoise, draft.passes.commit), draft.stop_reason


STOP = STOP_IDS[0]


def test_a_static_draft_ends_in_whatever_pass_makes_its_last_token_known() -> None:
    assert scripted({}, 5, 3) == (3, (1, 0), "length")
    assert scripted({}, 5, 4) == (4, (1, 1), "length")  # the last is a block's first token: a commit pass knows it
    assert scripted({}, 8, 1) == (1, (0, 0), "length")  # so does the prefill


@pytest.mark.parametrize("rule", ["published", "strict"])
def test_a_window_is_tested_after_denoising_passes_only(rule: str) -> None:
    unsure, sure = (lambda first, tau=tau: Window(first, tau, 2, 100, rule) for tau in (1.0, 0.0))
    assert scripted({}, 5, unsure(3)) == (3, (1, 0), "low_confidence")
    assert scripted({}, 5, unsure(4)) == (4, (2, 1), "low_confidence")
    assert scripted({}, 8, unsure(1)) == (1, (1, 0), "low_confidence")
    # Windows of 4, 6, 8, 10 and 12: one pass, one growth, however much is known already.
    assert scripted({24: STOP}, 8, sure(4)) == (12, (4, 2), "stop_token")


@pytest.mark.parametrize("rule", ["published", "strict"])
def test_a_known_stop_token_ends_the_draft_wherever_the_window_ends(rule: str) -> None:
    window = Window(2, 0.0, 1, 100, rule)
    assert scripted({8: STOP}, 8, window) == (1, (0, 0), "stop_token")  # before the first pass
    assert scripted({9: STOP}, 8, window) == (2, (1, 0), "stop_token")
    # Known after the first pass, beyond the window, which has been tested and has grown to 3 tokens.
    assert scripted({11: STOP}, 8, window) == (3, (1, 0), "stop_token")
    assert scripted({8: STOP}, 4, Window(9, 0.0, 1, 100, rule)) == (5, (1, 1), "stop_token")  # by a commit pass


def test_the_windows_test_comes_before_the_stop_token() -> None:
    assert scripted({10: STOP}, 8, Window(4, 1.0, 1, 100)) == (3, (1, 0), "low_confidence")
    assert scripted({10: STOP}, 8, Window(4, 0.0, 1, 1)) == (3, (1, 0), "max_len")
