"""Reconciling a server's counts with recorded ones: ten planted differences, each named first; and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from planted_servers import STOP, Planted, drafter, pair, prompt_of, recorded, said, shifted, target, unmapped

from specdec.ranking.conventions import Convention, Written, tally
from specdec.ranking.reconcile import OURS, Reconciled, agrees, reconcile
from specdec.ranking.text_findings import Show

QUESTIONS = range(8)
OWN = Convention(5)
SHIFTED, UNMAPPED = "taps one layer lower", "its vocabulary map (d2t) is ignored"
VARIANTS = {OURS: drafter, SHIFTED: shifted, UNMAPPED: unmapped}
USUAL = ["first token", "whole drafts", "past the end"]


def found(server: Planted, show: Show | None = None, gap: float = 3.0, **changes: object) -> Reconciled:
    served = {number: server.answer(number, prompt_of(number)) for number in QUESTIONS}
    variants = {name: {number: recorded(number, says) for number in QUESTIONS} for name, says in VARIANTS.items()}
    pairs = [pair(number, variants[OURS][number], served[number], gap, **changes) for number in QUESTIONS]
    return reconcile(pairs, served, variants, OWN, 9, show)


def kinds(one: Reconciled) -> list[str]:
    return [finding.kind for finding in one.findings]


def test_a_server_s_usual_ways_are_named_and_explain_every_count():
    one = found(Planted())
    assert kinds(one) == USUAL and one.is_explained and one.questions == list(QUESTIONS)
    labels = [label.partition(":")[0] for label, _, _ in one.steps]
    assert labels == [OURS, *USUAL] and one.steps[-1][2] == len(QUESTIONS) > one.steps[0][2]


def penalised(text: Sequence[int]) -> int:
    """The target under a repetition penalty: never a token of the last ten again."""
    token = target(text)
    return token if token == STOP or token not in text[-10:] else 3 + said(6, text[-3:], 40)


def rounded(text: Sequence[int]) -> int:
    """The target in another arithmetic: once in forty tokens the second best."""
    return target(text) if said(7, text[-6:], 40) else 3 + said(8, text[-2:], 40)


def with_bos(ids: list[int]) -> list[int]:
    return [0, *ids]


def with_system(ids: list[int]) -> list[int]:
    return [ids[0], 5, 6, 7, *ids[1:]]


def without_thinking(ids: list[int]) -> list[int]:
    return [*ids, 8, 9]


PLANTED = {
    "template": Planted(prompt=with_system),
    "BOS": Planted(prompt=with_bos),
    "thinking": Planted(prompt=without_thinking),
    "budget": Planted(budget=16),
    "block length": Planted(draft_len=3),
    "stop ids": Planted(stop_ids=(STOP, 7)),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_difference_is_named_first(kind):
    one = found(PLANTED[kind])
    assert kinds(one)[0] == kind
    if kind in ("budget", "block length", "stop ids"):
        assert one.is_explained and kinds(one)[1:] == USUAL


def test_a_bonus_that_is_counted_is_named():
    one = found(Planted(counts_bonus=True))
    assert kinds(one) == [*USUAL, "bonus"] and one.is_explained


@pytest.mark.parametrize(("drafts", "text"), [(shifted, SHIFTED), (unmapped, UNMAPPED)], ids=["taps", "d2t"])
def test_a_drafter_s_planted_mistake_is_named_first(drafts, text):
    one = found(Planted(drafts=drafts))
    assert one.findings[0].sentence == f"drafter: {text}" and kinds(one)[1:] == USUAL and one.is_explained
    assert one.steps[1][0] == f"drafter: {text}"


def test_arithmetic_is_named_where_answers_part_at_near_ties():
    one = found(Planted(says=rounded), gap=0.02)
    assert kinds(one)[0] == "dtype" and "0.02 apart" in one.findings[0].text


def test_sampling_defaults_are_named_where_a_repeated_token_is_avoided():
    one = found(Planted(says=penalised))
    assert kinds(one)[0] == "sampling defaults" and "repetition penalty" in one.findings[0].text


def test_a_server_that_answers_otherwise_when_it_is_asked_again_samples():
    one = found(Planted(says=rounded), served_again=[9, 9])
    assert kinds(one)[0] == "sampling defaults" and "asked again" in one.findings[0].text


def test_other_weights_are_named_where_nothing_else_explains_it():
    one = found(Planted(says=lambda text: 3 + said(9, text[-3:], 40)))
    assert kinds(one) == ["model"] and not one.questions


def test_another_tokenizer_is_no_template():
    one = found(Planted(prompt=lambda ids: [30 + token for token in ids]))
    assert kinds(one) == ["tokenizer"] and not one.questions


def test_tokens_are_shown_as_text_and_a_thinking_prompt_is_known_by_it():
    words = {5: "/no_", 6: "think", 7: "\n"}
    one = found(Planted(prompt=with_system), show=lambda ids: "".join(words.get(token, "x") for token in ids))
    assert kinds(one)[0] == "thinking" and "'/no_think" in one.findings[0].text


def test_a_drafter_without_weights_is_named_by_its_counts():
    one = found(Planted(drafts=lambda text: 1))
    assert "weights" in kinds(one) and not one.is_explained and "lacks weights" in one.findings[-1].text


def test_a_drafter_that_no_hypothesis_gives_is_left_unexplained():
    one = found(Planted(drafts=lambda text: target(text) if said(11, text[-4:], 2) else 3))
    assert kinds(one)[-1] == "unexplained" and one.apart and not one.is_explained


def test_copied_drafts_go_on_after_a_stop_token_where_drafts_are_whole():
    """A drafter that writes ends there: whole, its draft counts as many tokens as it may have."""
    copied = Written([7, 8, 9, 2], [[7, 2, 5], [], [], []], {2}, 16, is_copied=True)
    whole = Convention(8, is_whole=True)
    assert [tally(copied, one).num_drafted for one in (Convention(8), whole)] == [2, 3]
    written_out = Written([7, 8, 9, 2], [[7, 2], [], [], []], {2}, 16)
    assert [tally(written_out, one).num_drafted for one in (Convention(8), Convention(8, is_whole=True))] == [2, 8]
    assert copied.cut(2).is_copied


def test_counts_after_the_end_stay_within_what_was_drafted_there():
    written = recorded(0)
    whole = tally(written, Convention(5, first_from_prompt=True, is_whole=True, counts_past_end=True))
    server = Planted().answer(0, prompt_of(0))
    assert agrees(whole, server)
    for extra in (-1, 1 + whole.num_open):
        assert not agrees(whole, replace(server, num_accepted=whole.num_accepted + extra))


def test_without_tokens_counts_alone_are_reconciled():
    """A table of counts from anywhere."""
    server = Planted()
    served = {number: server.answer(number, prompt_of(number)) for number in QUESTIONS}
    bare = {
        number: replace(one, prompt_ids=None, output_ids=None, finish_reason=None, num_rounds=None, num_drafts=None)
        for number, one in served.items()
    }
    answers = {number: recorded(number) for number in QUESTIONS}
    one = reconcile(
        [pair(number, answers[number], bare[number]) for number in QUESTIONS], bare, {OURS: answers}, OWN, 9
    )
    assert kinds(one) == USUAL and one.is_explained
