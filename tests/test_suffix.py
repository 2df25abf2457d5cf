"""Suffix decoding: drafts beside a count of everything and beside ArcticInference's own tree; rounds and texts, live,
recorded and replayed.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from families import flags, save_family
from hypothesis import given
from hypothesis import strategies as st
from live import assert_same, blank, plain_trace, rounds_of
from made_up import STOP_ID, made_up_trace
from toys import ARCHITECTURES, toy_model

from experiments import compare_suffix
from specdec.commands import rank
from specdec.commands import replay as replay_command
from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.drafters.base import Setup
from specdec.drafters.earlier import Earlier
from specdec.drafters.families import kinds, parse_name
from specdec.drafters.suffix import Suffix, SuffixDrafter, answers_of
from specdec.drafters.suffix_tree import END, SuffixTree
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import load_profile
from specdec.models.lm import CachedLM
from specdec.ranking.oracle import TraceJudges
from specdec.records.identity import LIVE
from specdec.records.record import Record, find_records, load_record
from specdec.traces.replay import replay
from specdec.traces.trace import find_traces, load_trace

BOUND = load_profile("vLLM_A6000")
SPECS = st.builds(
    Suffix,
    st.sampled_from([2, 3, 4, 6, 64]),
    st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]),
    st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]),
    st.sampled_from([0.0, 1.0, 2.5]),
    st.sampled_from([1, 3, 64]),
)
TEXTS = st.one_of(
    st.lists(st.integers(0, 3), min_size=1, max_size=40),
    st.lists(st.integers(0, 2), min_size=1, max_size=5).map(lambda part: (part * 30)[:36]),
)
SETTINGS = (
    *(
        Suffix(),
        Suffix(factor=2.0),
        Suffix(offset=2.0),
        Suffix(floor=0.5),
        Suffix(floor=0.0),
        Suffix(8),
        Suffix(2, offset=1.0),
    ),
    *(Suffix(max_draft_len=2), Suffix(min_score=1.5), Suffix(16, 3.0, 1.0, 0.05, 0.5, 8), Suffix(32, 0.5, 4.0)),
)


# ---- what the definition says, by counting everything anew -----------------------------------------------------------


def following(texts: Sequence[Sequence[int]], run: Sequence[int]) -> list[int]:
    """The token after each place where a run stands, in the order of the texts; END where a text ends there."""
    return [
        text[end] if end < len(text) else END
        for text in texts
        for end in range(len(run), len(text) + 1)
        if list(text[end - len(run) : end]) == list(run)
    ]


def most_frequent(tokens: Sequence[int]) -> int:
    """By one token after the other: a new one is last; who comes level with others is first of them if it was first of
    those that it leaves, else last."""
    order: list[int] = []
    counts: dict[int, int] = {}
    for token in tokens:
        if token not in counts:
            order.append(token)
            counts[token] = 1
            continue
        was_first = [one for one in order if counts[one] == counts[token]][0] == token
        counts[token] += 1
        order.remove(token)
        level = [at for at, one in enumerate(order) if counts[one] == counts[token]]
        above = sum(counts[one] > counts[token] for one in order)
        order.insert(above if was_first or not level else level[-1] + 1, token)
    return order[0]


def searched(text: Sequence[int], spec: Suffix) -> list[int]:
    """The best draft after a text: match lengths 1, 2, ... up to the first miss, each followed as far as its limits let
    it, the highest sum of probabilities, of equals the longer match."""
    best: list[int] = []
    best_score, match_len = np.float32(0), 1
    while match_len < min(len(text), spec.max_depth):
        match = list(text[len(text) - match_len :])
        if not [one for one in following([text], match) if one != END]:
            break
        tokens, score, probability = [], np.float32(0), np.float32(1)
        most = np.float32(match_len) * np.float32(spec.factor) + np.float32(spec.offset)
        limit = min(int(float(most) + 1e-6), spec.max_draft_len, spec.max_depth - match_len)
        while len(tokens) < limit:
            after = following([text], match + tokens)
            known = [one for one in after if one != END]
            if not known:
                break
            token = most_frequent(known)
            probability *= np.float32(known.count(token)) / np.float32(len(after))
            if probability < np.float32(spec.floor):
                break
            tokens.append(token)
            score += probability
        if score >= best_score:
            best, best_score = tokens, score
        match_len += 1
    return best if best_score >= spec.min_score else []


@given(TEXTS, SPECS, st.integers(0, 12))
def test_drafts_are_what_counting_everything_gives(text: list[int], spec: Suffix, budget: int) -> None:
    """One drafter along all prefixes of a text, as in decoding."""
    drafter = SuffixDrafter(spec, ())
    for end in range(1, len(text) + 1):
        draft = drafter.propose(text[:end], budget)
        assert draft.tokens == searched(text[:end], spec)[:budget]
        assert draft.passes.total == 0 and draft.drawn_from is None
        assert len(draft.confidences) == len(draft.token_confidences) == len(draft.tokens)
        assert all(0 < one <= 1 for one in draft.confidences)
        assert draft.stop_reason == ("length" if draft.tokens else "none")


@given(st.lists(TEXTS, min_size=1, max_size=4), st.sampled_from([1, 2, 4, 64]))
def test_a_tree_counts_every_run_of_all_texts(texts: list[list[int]], max_depth: int) -> None:
    tree = SuffixTree(max_depth)
    for number, text in enumerate(texts):
        if number:
            tree.begin()
        tree.extend(text)
    runs = {tuple(text[at : at + size]) for text in texts for at in range(len(text)) for size in range(1, max_depth)}
    for run in runs:
        after = following(texts, run)
        known = [one for one in after if one != END]
        guess = tree.follow(tree.matches([-2, *run])[-1], 1, np.float32(0)) if known else None
        if known and len(run) < max_depth and guess is not None:
            assert guess.tokens == [most_frequent(known)]
            assert guess.shares == [float(np.float32(known.count(guess.tokens[0])) / np.float32(len(after)))]


def test_ties_by_hand() -> None:
    """After 5: 1 and 2 twice each, 1 first. 2 comes level from the second place of those once seen: it stays after 1.
    Then 3, which is the first of those once seen as nobody else is left there, goes before both."""
    drafter = SuffixDrafter(Suffix(floor=0.0), ())
    text = [5, 1, 5, 2, 5, 1, 5, 2, 5]
    assert drafter.propose(text, 1).tokens == [1]
    assert drafter.propose([*text, 3, 5, 3, 5], 1).tokens == [3]


def test_another_text_is_read_anew_and_a_draft_ends_with_a_stop_token() -> None:
    drafter = SuffixDrafter(Suffix(factor=4.0), {9})
    assert drafter.propose([5, 9, 4, 5], 8).tokens == [9]
    assert drafter.propose([5, 9, 4, 5], 8).stop_reason == "stop_token"
    assert drafter.propose([7, 8, 7], 8).tokens == [8, 7] and drafter.propose([5], 8).tokens == []
    drafter.reset()
    assert drafter.propose([5, 4, 5], 0).tokens == [] and drafter.propose([5, 4, 5], 0).asked_len == 2


def test_arctic_inference_drafts_the_same() -> None:
    """As experiments/compare_suffix.py does it over recorded texts too (docs/results)."""
    pytest.importorskip("arctic_inference.suffix_decoding", reason="needs arctic_inference's suffix decoding")
    found = compare_suffix.compared(compare_suffix.random_texts(60), compare_suffix.SETTINGS)
    assert found["with_tokens"] > 5000 and found["different"] == 0


# ---- earlier answers -------------------------------------------------------------------------------------------------


@given(st.lists(TEXTS, min_size=2, max_size=4), SPECS)
def test_what_is_kept_between_questions_changes_no_draft(texts: list[list[int]], spec: Suffix) -> None:
    """Each text a question, half of it its prompt; every third round is skipped, as where a draft is accepted."""
    spec, drafts = dataclasses.replace(spec, earlier=True), []
    for is_kept in (True, False):
        answers_of.cache_clear()
        drafts.append([])
        for number, text in enumerate(texts):
            if not is_kept:
                answers_of.cache_clear()
            before = [one[len(one) // 2 :] for one in texts[:number]]
            drafter = SuffixDrafter(spec, (), Earlier(read=lambda before=before: before))
            drafter.reset()
            ends = [end for end in range(max(len(text) // 2, 1), len(text)) if end % 3]
            drafts[-1] += [drafter.propose(text[:end], 9).tokens for end in ends]
    assert drafts[0] == drafts[1]


def test_an_earlier_answer_is_drafted_where_more_is_to_be_expected_of_it() -> None:
    drafter = SuffixDrafter(Suffix(earlier=True), (), Earlier(read=lambda: [[4, 5, 6, 7, 8], [9, 4, 5]]))
    assert drafter.propose([1, 4, 5], 9).tokens == [6, 7], "twice 5, of which one goes on: 0.5 + 0.5"
    assert SuffixDrafter(Suffix(), ()).propose([1, 4, 5], 9).tokens == []


@pytest.mark.slow
def test_earlier_answers_are_the_runs_whatever_its_shards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    """Whole, resumed, in shards and replayed: the same rounds; what cannot be the same is refused in one line."""
    family, name = save_family(tmp_path / "family"), Suffix(earlier=True).name
    names = (name, f"{name}_else_ar_None_sf_2")
    asked, rng = tmp_path / "asked.jsonl", random.Random(1)
    prompts = [" ".join(f"word{rng.randrange(6)}" for _ in range(9)) for _ in range(4)]
    asked.write_text("".join(f'{{"prompt": "{one}"}}\n' for one in prompts))

    def run(folder: str, *more: str, drafters: tuple[str, ...] = ("plain", *names)) -> tuple[int, str]:
        where = ["--dataset_name", str(asked), "--drafters", *drafters, *more]
        status = failfast.main(flags(family, tmp_path / folder, *where))
        return status, capsys.readouterr().err

    def records(folder: str) -> dict[tuple[int, str], Record]:
        found = map(load_record, find_records(tmp_path / folder))
        return {(one.question_id, one.drafter_name): one for one in found if one.drafter_name in names}

    assert run("whole")[0] == 0
    whole = records("whole")
    counts = [whole[number, one].identity.settings["earlier_questions"] for one in names for number in range(4)]
    assert counts == 2 * [0, 1, 2, 3] and len({one.identity.settings["earlier_sha256"] for one in whole.values()}) == 4
    status, error = run("parts", "--shard", "1/2")
    assert status == 2 and "none of plain decoding to question 0" in error and error.count("\n") == 1
    assert not list((tmp_path / "parts").rglob("*.pickle"))
    assert run("parts", drafters=("plain",))[0] == 0
    assert run("parts", "--shard", "1/2")[0] == 0 and run("parts", "--shard", "0/2")[0] == 0
    assert run("parts")[0] == 0 and run("whole")[0] == 0, "nothing is left to do"
    assert run("replayed", "--record")[0] == 0
    replayed = ["--drafters", *names, "--output_dir", str(tmp_path / "replayed"), "--workers", "1", "--latency_target"]
    assert replay_command.main([str(tmp_path / "replayed"), *replayed, "Qwen2.5-7B-Instruct"]) == 0
    parts, again = records("parts"), records("replayed")
    assert len(whole) == 8
    for key, record in whole.items():
        assert record.identity == parts[key].identity
        assert record.identity == dataclasses.replace(again[key].identity, origin=LIVE)
        assert_same(blank(record.rounds), blank(parts[key].rounds))
        assert_same(blank(record.rounds), blank(again[key].rounds))
    assert sum(record.num_accepted for record in whole.values()) > 0
    assert "leave out --temperature" in run("sampled", "--temperature", "1")[1]
    asked.write_text('{"turns": ["word1 word2", "word3"]}\n')
    assert "--turns first" in run("turns")[1]


# ---- a family as any other -------------------------------------------------------------------------------------------


def test_names_and_flags() -> None:
    assert Suffix().name == "suffix_64" and kinds()["suffix"] is Suffix
    assert Suffix(16, 3.0, 1.0, 0.05, 0.5, 8).name == "suffix_16_f3.0_o1.0_p0.05_s0.5_n8"
    assert len({spec.name for spec in SETTINGS}) == len(SETTINGS)
    assert all(parse_name(spec.name) == spec for spec in SETTINGS)
    assert Suffix(floor=0.5).label == "suffix decoding, depth 64, floor 0.5" and Suffix(floor=0.5).variant == "p0.5"
    line = {"drafters": ("suffix",), "suffix_depth": (8, 64), "suffix_factor": (1, 2.5), "suffix_max_draft_len": (4,)}
    names = [spec.name for spec in RunConfig.of(**line).drafters.specs()]
    assert names == ["suffix_8_n4", "suffix_8_f2.5_n4", "suffix_64_n4", "suffix_64_f2.5_n4"]
    assert "suffix" not in RunConfig.of().drafters.kinds
    (both,) = RunConfig.of(drafters=("suffix",), suffix_floor=(0.5,), suffix_earlier=True).drafters.specs()
    assert both.name == "suffix_64_p0.5_earlier" and parse_name(both.name) == both


@pytest.mark.parametrize(
    "name", ["suffix_64_f1.0", "suffix_64_p0.10", "suffix_64_n8_f2.0", "suffix_", "suffix_64_fnan"]
)
def test_other_spellings_name_no_drafter(name: str) -> None:
    with pytest.raises(UserError, match="does not name a drafter"):
        parse_name(name)


@pytest.mark.parametrize("seed", range(6))
def test_replays_need_no_chains_and_nothing_beats_the_ceiling(seed: int) -> None:
    trace = made_up_trace(seed, num_tokens=60, chain_len=24, vocab_size=3, max_new_tokens=60 + seed % 2)
    judges = TraceJudges(trace, Pricing((BOUND,), "Qwen2.5-7B-Instruct"))
    for spec in SETTINGS:
        record = replay(trace, spec)
        assert record.output_tokens == trace.output_tokens and record.num_forward_passes == 0
        assert STOP_ID not in [token for turn in record.rounds for token in turn.draft_tokens[:-1]]
        (ceiling,) = judges.ceilings(record).values()
        total_ms = price(record, BOUND, "Qwen2.5-7B-Instruct").total_ms
        assert ceiling.total_ms == pytest.approx(total_ms) and ceiling.share <= 1 + 1e-9
        assert min(ceiling.over_ms, ceiling.under_ms, ceiling.passes_ms) > -1e-6


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_texts_are_plain_decodings_and_live_rounds_are_the_replayed_ones(architecture: str, one_thread: None) -> None:
    """40 prompts with 0 differences to plain decoding, under every setting in turn."""
    lm, rng = CachedLM(toy_model(architecture, 1, scale=4.0)), random.Random(architecture)
    accepted = 0
    for number in range(40):
        trace = plain_trace(lm, [rng.randrange(12) for _ in range(rng.randint(2, 30))], 20)
        spec = SETTINGS[number % len(SETTINGS)]
        live = rounds_of(lm, spec.drafter(Setup(trace.stop_ids)), trace)
        assert live == blank(replay(trace, spec).rounds)
        accepted += sum(turn.accepted_len for turn in live)
    assert accepted > 50


@pytest.mark.slow
def test_run_recorded_replayed_priced_and_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The way of a user."""
    where = ["--num_questions", "1", "--max_new_tokens", "32", "--device", "cpu", "--drafters", "plain", "suffix"]
    where += ["--suffix_factor", "1", "2"]
    assert failfast.main([*where, "--record", "--output_dir", str(tmp_path / "traced")]) == 0
    (path,) = find_traces(tmp_path / "traced")
    assert set(load_trace(path).chains) == {"suffix_64", "suffix_64_f2.0"}
    replayed = [*where[6:], "--output_dir", str(tmp_path / "replayed"), "--workers", "1"]
    assert replay_command.main([str(tmp_path / "traced"), *replayed]) == 0
    assert failfast.main([*where, "--output_dir", str(tmp_path / "live")]) == 0
    names = {load_record(one).drafter_name for one in find_records(tmp_path / "live")}
    assert names == {"plain", "suffix_64", "suffix_64_f2.0"}
    assert failfast.main([*where, "--temperature", "0.7", "--output_dir", str(tmp_path / "sampled")]) == 0
    capsys.readouterr()
    assert rank.main([str(tmp_path / "replayed"), "--trace_dir", str(tmp_path / "traced")]) == 0
    shown = capsys.readouterr().out
    assert "suffix_64" in shown and "ceiling" in shown.lower()
