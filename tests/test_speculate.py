"""The loop alone, with scripted targets and drafters: what is emitted, where it is cut, what is counted and timed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from fakes import FakeClock, FakeDraft, FakePasses, ScriptedDrafter, ScriptedTarget

from specdec.decoding.loop import speculate

STOP = 0
PROMPT = [7, 8, 9]


def _output(rounds: Sequence) -> list[int]:
    return [token for made in rounds for token in made.emitted_tokens]


def _drafts(*drafts: Sequence[int]) -> ScriptedDrafter:
    """A drafter that offers these drafts one after the other, whatever its budget, and then nothing."""
    waiting = [list(draft) for draft in drafts]
    return ScriptedDrafter(lambda prefix, budget: FakeDraft(waiting.pop(0) if waiting else []))


def _run(text: Sequence[int], drafter: ScriptedDrafter, max_new_tokens: int = 100, prompt: Sequence[int] = PROMPT):
    target = ScriptedTarget([*text, *[1] * 200])
    return speculate(target, drafter, prompt, max_new_tokens=max_new_tokens, stop_ids={STOP}, clock=FakeClock())


def _expected(text: Sequence[int], max_new_tokens: int) -> list[int]:
    end = text.index(STOP) + 1 if STOP in text else len(text)
    return list(text[: min(end, max_new_tokens)])


# ---- any drafter at all --------------------------------------------------------------------------------------


def _guesser(rng: random.Random, text: list[int], prompt_len: int, *, keeps_budget: bool) -> ScriptedDrafter:
    """Knows the text, but errs now and then; may draft past the stop token and, if allowed, over the budget."""

    def script(prefix: list[int], budget: int) -> FakeDraft:
        at, length = len(prefix) - prompt_len, rng.randint(0, 9)
        length = min(length, budget) if keeps_budget else length
        tokens = [token if rng.random() < 0.8 else token + 1 for token in text[at : at + length]]
        return FakeDraft(tokens, passes=FakePasses(1, 2, 3))

    return ScriptedDrafter(script)


@pytest.mark.parametrize("keeps_budget", [True, False])
def test_output_is_the_targets_text_cut_at_stop_and_budget(keeps_budget: bool) -> None:
    for seed in range(300):
        rng = random.Random(seed)
        prompt = [rng.randint(1, 5) for _ in range(rng.randint(1, 4))]
        text = [STOP if rng.random() < 0.04 else rng.randint(1, 5) for _ in range(60)]
        max_new_tokens = rng.randint(1, 40)
        drafter = _guesser(rng, text, len(prompt), keeps_budget=keeps_budget)
        rounds = _run(text, drafter, max_new_tokens, prompt)
        assert _output(rounds) == _expected(text, max_new_tokens), seed
        _assert_books_balance(rounds, drafter, prompt, max_new_tokens)


def _assert_books_balance(rounds: Sequence, drafter: ScriptedDrafter, prompt: list[int], max_new_tokens: int) -> None:
    """Every round starts where the last ended and emits; the drafter is told prefix and budget; totals agree."""
    output = _output(rounds)
    starts = [len(prefix) for prefix in drafter.prefixes]
    assert [made.prefix_len for made in rounds] == starts
    assert drafter.prefixes == [(prompt + output)[:start] for start in starts]
    assert drafter.budgets == [max_new_tokens - (start - len(prompt)) - 1 for start in starts]
    assert len(drafter.verifications) == len(rounds)
    for before, after in pairwise(rounds):
        assert after.prefix_len == before.prefix_len + len(before.emitted_tokens)
    for made in rounds:
        assert 0 <= made.accepted_len <= made.draft_len
        assert len(made.emitted_tokens) == made.accepted_len + (made.next_token is not None) > 0
        assert made.num_forward_passes == 6
    for made in rounds[:-1]:
        assert made.next_token is not None
        assert made.correction_token is None or made.bonus_token is None
    assert sum(made.accepted_len for made in rounds) <= len(output)


# ---- the cut, case by case -----------------------------------------------------------------------------------


def test_stop_token_inside_an_accepted_draft() -> None:
    (made,) = _run([5, 5, STOP, 5, 5, 5], _drafts([5, 5, STOP, 5, 5]))
    assert made.emitted_tokens == [5, 5, STOP]
    assert (made.draft_len, made.accepted_len, made.next_token) == (3, 3, None)
    assert made.acceptance_rate == 1.0
    assert made.correction_token is None and made.bonus_token is None


def test_stop_token_at_the_end_of_an_accepted_draft_leaves_no_room_for_the_bonus() -> None:
    (made,) = _run([5, STOP, 5], _drafts([5, STOP]))
    assert (made.emitted_tokens, made.draft_len, made.accepted_len, made.next_token) == ([5, STOP], 2, 2, None)


def test_stop_token_first() -> None:
    for draft in ([], [STOP], [STOP, 5], [4]):
        (made,) = _run([STOP, 5, 5], _drafts(draft))
        assert made.emitted_tokens == [STOP]
        assert made.accepted_len == (1 if draft[:1] == [STOP] else 0)


def test_stop_token_as_correction() -> None:
    (made,) = _run([5, STOP, 5], _drafts([5, 4]))
    assert (made.emitted_tokens, made.accepted_len, made.correction_token) == ([5, STOP], 1, STOP)


def test_stop_token_as_bonus() -> None:
    (made,) = _run([5, 5, STOP, 5], _drafts([5, 5]))
    assert (made.emitted_tokens, made.accepted_len, made.bonus_token) == ([5, 5, STOP], 2, STOP)


def test_rejected_stop_token_ends_nothing() -> None:
    rounds = _run([5, 6, STOP], _drafts([5, STOP, 5]))
    assert _output(rounds) == [5, 6, STOP]
    assert (rounds[0].accepted_len, rounds[0].correction_token, rounds[0].draft_len) == (1, 6, 3)


def test_budget_cuts_a_draft_that_is_too_long() -> None:
    (made,) = _run([5, 6, 7, 8, 9, 5], _drafts([5, 6, 7, 8, 9]), max_new_tokens=3)
    assert (made.emitted_tokens, made.draft_len, made.accepted_len, made.next_token) == ([5, 6, 7], 3, 3, None)


def test_draft_that_fills_the_budget_has_no_bonus() -> None:
    (made,) = _run([5, 6, 7], _drafts([5, 6]), max_new_tokens=2)
    assert (made.emitted_tokens, made.next_token) == ([5, 6], None)


@pytest.mark.parametrize("max_new_tokens", [0, 1, 2])
def test_smallest_budgets(max_new_tokens: int) -> None:
    drafter = _drafts()
    rounds = _run([5, 6, 7], drafter, max_new_tokens)
    assert _output(rounds) == [5, 6, 7][:max_new_tokens]
    assert drafter.budgets == list(range(max_new_tokens))[::-1]


def test_prompt_that_ends_in_a_stop_token_is_answered() -> None:
    assert _output(_run([5, 6, STOP], _drafts([5]), prompt=[STOP])) == [5, 6, STOP]


def test_any_of_several_stop_tokens_ends_the_output() -> None:
    for text, end in (([5, 3, 4], 2), ([5, 4, 3], 2), ([5, 5, 5], 3)):
        rounds = speculate(ScriptedTarget(text), _drafts(), PROMPT, max_new_tokens=3, stop_ids=[3, 4])
        assert _output(rounds) == text[:end]


# ---- plain decoding, order of calls, time --------------------------------------------------------------------


def test_plain_decoding_is_the_drafter_that_proposes_nothing() -> None:
    rounds = _run([5, 6, 7, STOP], _drafts())
    assert [made.emitted_tokens for made in rounds] == [[5], [6], [7], [STOP]]
    assert all(made.draft_len == made.accepted_len == 0 and made.acceptance_rate == 0.0 for made in rounds)
    assert [made.bonus_token for made in rounds] == [5, 6, 7, STOP]


def test_target_sees_the_prompt_once_and_then_only_drafts() -> None:
    target, drafter = ScriptedTarget([5, 6, 7, 8, 9, 1]), _drafts([5, 6], [4])
    speculate(target, drafter, PROMPT, max_new_tokens=5, stop_ids={STOP})
    assert target.calls == [("start", PROMPT), ("verify", [5, 6]), ("verify", [4]), ("verify", [])]
    assert drafter.num_resets == 1 and drafter.prefixes[0] == PROMPT
    assert [(seen.accepted_len, seen.next_token) for seen in drafter.verifications] == [(2, 7), (0, 8), (0, 9)]


def test_rounds_keep_what_the_draft_says_about_itself() -> None:
    draft = FakeDraft([5, 4], [0.9, 0.25, 0.5], FakePasses(1, 3, 2), "low_confidence")
    made = _run([5, 6], ScriptedDrafter(lambda prefix, budget: draft), max_new_tokens=2)[0]
    assert (made.draft_tokens, made.confidences, made.stop_reason) == ([5, 4], [0.9, 0.25, 0.5], "low_confidence")
    assert (made.num_prefill_passes, made.num_denoise_passes, made.num_commit_passes) == (1, 3, 2)


def test_only_drafting_and_verifying_are_timed() -> None:
    """Not the start of either model, and not what the drafter does with the verification."""
    clock = FakeClock()
    target = ScriptedTarget([5, 6, 7, 8], clock, seconds=0.25)
    drafter = ScriptedDrafter(lambda prefix, budget: FakeDraft([]), clock, seconds=0.5)
    rounds = speculate(target, drafter, PROMPT, max_new_tokens=3, stop_ids={STOP}, clock=clock)
    assert [(made.draft_ms, made.verify_ms) for made in rounds] == [(500.0, 250.0)] * 3


def test_the_caller_keeps_its_prompt() -> None:
    prompt = list(PROMPT)
    _run([5, STOP], _drafts([5]), prompt=prompt)
    assert prompt == PROMPT


@pytest.mark.slow
def test_needs_no_torch() -> None:
    code = "import sys, specdec.decoding.loop; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
