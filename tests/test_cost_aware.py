"""The cost-aware policy: what it learns, what it decides, and that live and replayed drafts are the same."""

from __future__ import annotations

import dataclasses
import json
import random
from functools import cache
from pathlib import Path

import pytest
from made_up import made_up_trace

from specdec.commands import calibrate, rank
from specdec.commands.replay import run as replay_run
from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.decoding.cost_aware import Advice, Calibration, Curve, ease_of, load_calibration, place_of
from specdec.drafters.block_diffusion import CostAware, FailFast
from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import LatencyProfile, load_profile
from specdec.questions.sets import load_problems
from specdec.ranking.entries import entry_of
from specdec.ranking.seen import unseen
from specdec.records.identity import LIVE
from specdec.records.record import Record
from specdec.runs.jobs import Job, run_job
from specdec.runs.recording import plan_traces, record_trace
from specdec.session import open_session
from specdec.traces.calibration import advice_of, fit_curve, reliability_table, save_calibration
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, save_trace, trace_path

pytestmark = pytest.mark.slow
ENGINE = "Qwen2.5-7B-Instruct@vLLM_A6000"
SPEC = CostAware(0.2, 20, ENGINE)


@cache
def many_traces(count: int = 12) -> list[Trace]:
    settings = {"num_tokens": 60, "chain_len": 30, "block_size": 8, "vocab_size": 4, "thresholds": (0.2,)}
    return [made_up_trace(seed, skill=0.8, **settings) for seed in range(count)]


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate.learn(many_traces()[::2], "dllm_0.2", [load_profile("vLLM_A6000")])


# ---- what is learnt ------------------------------------------------------------------------------------------------


def test_a_curve_is_linear_between_its_points_and_flat_beyond() -> None:
    curve = Curve([0.2, 0.6], [0.1, 0.9])
    assert [curve(c) for c in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])


def test_the_fit_never_falls_and_finds_what_made_the_data() -> None:
    rng = random.Random(1)
    confidences = [rng.random() for _ in range(20_000)]
    seen = [(c, rng.random() < c**2) for c in confidences]
    curve = fit_curve(seen)
    assert curve.acceptance == sorted(curve.acceptance) and curve.confidences == sorted(curve.confidences)
    assert all(abs(curve(c) - c**2) < 0.06 for c in (0.1, 0.3, 0.5, 0.7, 0.9))
    table = reliability_table(seen, curve)
    assert sum(row["num_tokens"] for row in table) == len(seen)
    assert all(abs(row["acceptance_rate"] - row["calibrated"]) < 0.03 for row in table)


def test_the_fit_of_few_and_equal_confidences_is_a_curve_too() -> None:
    assert fit_curve([(0.5, True)])(0.9) == pytest.approx(2 / 3)
    same = fit_curve([(0.5, True), (0.5, False), (0.5, False), (0.5, True)])
    assert same(0.1) == same(0.5) == pytest.approx(0.5)
    falling = fit_curve([(0.1, True), (0.9, False)]).acceptance
    assert falling == sorted(falling)


def test_places_and_ease() -> None:
    assert [place_of(p, 32, 8) for p in (32, 33, 39, 40, 41, 64)] == [0, 7, 1, 8, 7, 0]
    assert [ease_of(a) for a in (0.0, 0.5, 0.99)] == [0, 1, 6]


def test_the_tables_hold_the_means_of_what_was_seen(calibration: Calibration) -> None:
    """Counted once more, for each class: the accepted tokens that the next two passes brought while more could be
    drafted, drawn to the mean. (The last token before the budget's end is the target's own.)"""
    seen: dict[tuple[int, int], list[int]] = {}
    for trace in many_traces()[::2]:
        for at, chain in enumerate(trace.chains["dllm_0.2"].chains):
            text = trace.output_tokens[at:]
            most = min(len(text) - 1, len(chain.tokens))
            match = next(n for n in range(99) if n == most or chain.tokens[n] != text[n])
            for passes, known in enumerate(chain.known):
                if 1 <= known <= match and known < most:
                    left = place_of(len(trace.prompt_ids) + at + known, 8, 2)
                    ease = ease_of(min(calibration.curve(c) for c in chain.confidences[:known]))
                    then = chain.known[min(passes + 2, chain.num_passes)]
                    seen.setdefault((left, ease), []).append(min(match, then) - known)
    for left in range(3):
        everything = [gain for (place, _), gains in seen.items() for gain in gains if place == left]
        mean = sum(everything) / len(everything)
        for ease in range(7):
            gains = seen.get((left, ease), [])
            assert calibration.gains[left][ease][1] == pytest.approx((sum(gains) + 20 * mean) / (len(gains) + 20))


def test_more_passes_bring_more(calibration: Calibration) -> None:
    for left in range(3):
        for gains, growth in zip(calibration.gains[left], calibration.growth[left], strict=True):
            assert gains == sorted(gains) and all(0 <= g <= k for g, k in zip(gains, growth, strict=True))


# ---- what is decided -----------------------------------------------------------------------------------------------


def mean_draft_len(advice: Advice) -> float:
    rounds = [turn for trace in many_traces()[1::2] for turn in replay(trace, SPEC, advice=advice).rounds]
    return sum(turn.draft_len for turn in rounds) / len(rounds)


def test_time_worth_nothing_drafts_on_and_dear_time_stops_at_once(calibration: Calibration) -> None:
    lengths = [mean_draft_len(Advice(calibration, 6.1, [13.5] * 21, rate)) for rate in (0.0, 0.05, 0.1, 0.2, 10.0)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > 15 > 3 > lengths[-1]


def test_a_long_verification_is_worth_avoiding(calibration: Calibration) -> None:
    flat, steep = (Advice(calibration, 6.1, [13.5 + slope * n for n in range(21)], 0.1) for slope in (0.0, 5.0))
    assert mean_draft_len(steep) < mean_draft_len(flat)
    assert flat.best_len([0.9, 0.8, 0.1, 0.01]) == 4 and steep.best_len([0.9, 0.8, 0.1, 0.01]) == 2


def test_it_reaches_its_own_rate_and_beats_failfast_on_other_questions() -> None:
    profile, traces = load_profile("vLLM_A6000"), many_traces(60)
    learnt = calibrate.learn(traces[::2], "dllm_0.2", [profile])
    for engine, rate in learnt.rates.items():
        entry = engine.partition("@")[0]
        how = {"advice": Advice(learnt, 6.1, [profile.target_ms_per_token[entry]] * 61, rate)}
        own = CostAware(0.2, 60, engine)
        num_tokens = sum(len(trace.output_tokens) for trace in traces[::2])
        assert num_tokens / _total_ms(traces[::2], own, profile, entry, how) == pytest.approx(rate, rel=0.02)
        failfast = [FailFast(0.2, tau / 10, 10, 4, first_window=4) for tau in range(1, 10)]
        others = [_total_ms(traces[1::2], spec, profile, entry, {}) for spec in failfast]
        assert _total_ms(traces[1::2], own, profile, entry, how) < min(others)


def _total_ms(traces: list[Trace], spec: object, profile: LatencyProfile, entry: str, how: dict) -> float:
    return sum(price(replay(trace, spec, **how), profile, entry).total_ms for trace in traces)


# ---- live and replayed ---------------------------------------------------------------------------------------------


def test_replay_equals_live(one_thread: None, tmp_path: Path) -> None:
    """On the bundled family, for an advice that stops early and one that drafts on."""
    problems = load_problems("bundled", question_ids=[1, 2])
    usual = RunConfig.of(device="cpu", max_new_tokens=32, drafters=("plain", "failfast"), max_draft_len=(40,))
    session = open_session(usual)
    traces = [record_trace(session, job, lambda: None) for job in plan_traces(session, problems)]
    calibration = calibrate.learn(traces[:1], "dllm_0.05", [load_profile("vLLM_A6000")])
    lengths = []
    for rate in (0.15, 0.01):
        path = tmp_path / f"{rate}.json"
        save_calibration(path, [dataclasses.replace(calibration, rates={ENGINE: rate})])
        more = {"drafters": ("cost_aware",), "calibration": str(path), "latency_target": ENGINE[:19]}
        asked = open_session(RunConfig.of(**{**usual.settings(), **more}))
        asked.models = session.models
        (spec,) = asked.specs
        trace = traces[1]
        identity = trace.identity.of_drafter(spec.name, asked.results_identity(spec), LIVE)
        live = run_job(asked, Job(problems[1], trace.prompt_ids, spec, identity, Path("unused"), None), lambda: None)
        advice = advice_of(spec, path, [load_profile("vLLM_A6000")], trace.chains["dllm_0.05"].identity)
        replayed = replay(trace, spec, advice=advice)
        assert dataclasses.replace(replayed.identity, origin=LIVE) == live.identity
        assert "advice_sha256" in live.identity.settings
        for ours, theirs in zip(replayed.rounds, live.rounds, strict=True):
            assert ours.confidences == pytest.approx(theirs.confidences, abs=1e-5)
            blank = {"confidences": [], "draft_ms": 0.0, "verify_ms": 0.0}
            assert dataclasses.replace(ours, **blank) == dataclasses.replace(theirs, **blank)
        lengths.append(sum(turn.draft_len for turn in live.rounds) / len(live.rounds))
    assert lengths[0] < lengths[1]


# ---- files, names, flags -------------------------------------------------------------------------------------------


def test_the_calibration_is_kept_and_checked(calibration: Calibration, tmp_path: Path) -> None:
    path, profiles = tmp_path / "calibration.json", [load_profile("vLLM_A6000")]
    save_calibration(path, [calibration])
    assert load_calibration(path, "dllm_0.2") == calibration
    advice = advice_of(SPEC, path, profiles, calibration.identity)
    assert (
        advice.rate == calibration.rates[ENGINE]
        and advice.digest == advice_of(dataclasses.replace(SPEC), path, profiles, calibration.identity).digest
    )
    with pytest.raises(UserError, match="drafter_sha256: stored 'd', asked 'other'"):
        advice_of(SPEC, path, profiles, calibration.identity | {"drafter_sha256": "other"})
    with pytest.raises(UserError, match="has no calibration of dllm_0.7; make it with"):
        load_calibration(path, "dllm_0.7")
    with pytest.raises(UserError, match="'Qwen2.5-99B'"):
        advice_of(CostAware(0.2, 9, "Qwen2.5-99B@vLLM_A6000"), path, profiles, calibration.identity)
    with pytest.raises(UserError, match="cannot read the calibration"):
        load_calibration(tmp_path / "nothing.json", "dllm_0.2")
    for damage in ("[", "[]", json.dumps({"dllm_0.2": {"version": 1}}), json.dumps({"dllm_0.2": {"version": 9}})):
        path.write_text(damage)
        with pytest.raises(UserError, match="calibration"):
            load_calibration(path, "dllm_0.2")


def test_half_of_the_traces_is_learnt_from(tmp_path: Path) -> None:
    for trace in many_traces(4):
        save_trace(trace, trace_path(tmp_path, trace.identity))
    assert "from questions 0 2:" in calibrate.run([str(tmp_path)])
    assert load_calibration(tmp_path / "calibration.json", "dllm_0.2").question_ids == [0, 2]
    assert "from questions 1 3:" in calibrate.run([str(tmp_path), "--question_ids", "1", "3"])
    with pytest.raises(UserError, match="no trace of question 7"):
        calibrate.run([str(tmp_path), "--question_ids", "7"])
    short = made_up_trace(0, num_tokens=60, chain_len=8, block_size=8, thresholds=(0.2,))
    save_trace(short, trace_path(tmp_path, short.identity))
    with pytest.raises(UserError, match="--chain_len"):
        calibrate.run([str(tmp_path)])


def test_what_taught_the_policy_is_not_ranked_and_the_next_command_runs(tmp_path: Path) -> None:
    """The command that is printed, word for word; then all questions, with and without --allow_seen; then a log."""
    for trace in many_traces(12):
        save_trace(trace, trace_path(tmp_path, trace.identity))
    said = calibrate.run([str(tmp_path)], "failfast calibrate")
    assert "Held out: questions 1 3 5 7 9 11." in said
    command = said.splitlines()[2].split()
    assert command[:3] == ["failfast", "replay", str(tmp_path)]
    alone = json.loads(replay_run([*command[2:], "--json", "--workers", "1"]))
    drafters = ["--drafters", "cost_aware", "dllm_sf", "--drafter_thresholds", "0.2", "--sweep_max_spec_len", "30"]
    everything = [str(tmp_path), *drafters, "--workers", "1", "--json", "--log", str(tmp_path / "log.txt")]
    made = json.loads(replay_run([*everything, "--output_dir", str(tmp_path / "out")]))
    assert made["note"].startswith("Left out: 6 of 12 questions (0,2,4,6,8,10), which taught the cost-aware policy")
    rows = made["engines"][0]["rows"]
    assert [row["num_questions"] for row in rows] == [6, 6]
    own = next(row for row in rows if "_ca_" in row["drafter_name"])
    assert own["speedup_mean"] == alone["engines"][0]["rows"][0]["speedup_mean"]
    for place in ("log.txt", "out"):  # what was written down says so too
        again = json.loads(rank.run([str(tmp_path / place), "--json"]))
        assert (again["note"], again["engines"][0]["rows"][0]["num_questions"]) == (made["note"], 6)
    seen = json.loads(rank.run([str(tmp_path / "out"), "--json", "--allow_seen"]))
    assert (
        "taught a policy that is ranked here" in seen["note"] and seen["engines"][0]["rows"][0]["num_questions"] == 12
    )


def test_a_policy_that_has_seen_everything_is_left_out_and_the_others_are_ranked(calibration: Calibration) -> None:
    advice = Advice(calibration, 6.1, [13.5] * 21, 0.1)
    traces = many_traces()[:3:2]
    records = [replay(trace, spec, advice=advice) for trace in traces for spec in (SPEC, parse_name("dllm_0.2_sf_4"))]
    taught = [entry_of(record if "_ca_" in record.drafter_name else untaught(record)) for record in records]
    stats, note = unseen(taught)
    assert {one.drafter_name for one in stats} == {"dllm_0.2_sf_4"} and len(stats) == 2
    whole = "which learnt from every question that it was run on (--allow_seen ranks it)."
    assert note == f"Left out: {SPEC.name}, {whole}"
    old = [dataclasses.replace(one, has_seen=None) for one in taught]
    assert unseen(old)[0] == old and "do not say which questions" in unseen(old)[1]


def untaught(record: Record) -> Record:
    return dataclasses.replace(record, provenance={})


def test_seen_is_the_same_question_of_the_same_set_or_the_same_prompt(calibration: Calibration) -> None:
    own = many_traces(1)[0].identity
    other_set = dataclasses.replace(own, dataset="math")
    assert calibration.has_seen(own) and calibration.has_seen(other_set)  # the same prompt
    another = dataclasses.replace(other_set, settings={"prompt_sha256": "another"})
    assert not calibration.has_seen(another)
    former = dataclasses.replace(calibration, learnt_from=[])  # a file of before holds the numbers alone
    assert former.has_seen(another) and not former.has_seen(dataclasses.replace(another, question_id=1))


def test_its_name_holds_everything_but_the_calibration() -> None:
    for spec in (SPEC, CostAware(0.05, 60, "a_b@c_d"), CostAware(1.0, 7, ENGINE)):
        assert parse_name(spec.name) == spec
    with pytest.raises(UserError):
        parse_name("dllm_0.05_ca_60")


def test_flags() -> None:
    asked = parse_args(["--policy", "cost_aware", "--calibration", "c.json", "--run_ar"])
    assert asked.drafters.kinds == ("plain", "ar_sf", "cost_aware")
    pricings = Pricing.load(*vars(asked.pricing).values()).engines(asked.models.target_name)
    names = [spec.name for spec in asked.drafters.specs(pricings)]
    assert names[-1] == "dllm_0.05_ca_60_Qwen2.5-32B-Instruct@vLLM_A6000"
    for line in ("--policy cost_aware", "--policy cost_aware --calibration c --latency_profile none"):
        with pytest.raises(UserError, match="cost-aware policy needs"):
            parse_args(line.split())
    assert "cost_aware" not in parse_args([]).drafters.kinds
