"""The cost-aware policy over heads: what it cuts, what it learns, texts that are the target's, replays that equal live
runs; and hybrids over heads.
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from dflash_heads import save_dflash, toy_dflash
from dflash_heads import taught as taught_dflash
from families import save_model
from heads import save_head, taught, toy_head
from live import assert_same, blank
from test_dflash import made_target, questions

from specdec.commands import calibrate
from specdec.config import RunConfig
from specdec.decoding.cost_aware import EASE_EDGES, PASSES_AHEAD, Advice, Calibration, Curve, load_calibration
from specdec.drafters.base import Spec
from specdec.drafters.dflash import DflashCostAware, DflashStatic
from specdec.drafters.eagle3 import Eagle3CostAware, Eagle3Static
from specdec.drafters.families import parse_name
from specdec.drafters.hybrid import Hybrid
from specdec.errors import UserError
from specdec.latency.profile import load_profile
from specdec.questions.sets import load_problems
from specdec.records.identity import LIVE
from specdec.runs.jobs import Job, run_job
from specdec.runs.recording import plan_traces, record_trace
from specdec.session import Session, open_session
from specdec.traces.calibration import advice_of, save_calibration
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, load_trace, save_trace

pytestmark = pytest.mark.slow
BUDGET, ENGINE = 30, "toy@P"
TABLE = [[[float(more) for more in range(1, PASSES_AHEAD + 1)]] * (len(EASE_EDGES) + 1)]
POLICIES = (Eagle3CostAware(12, ENGINE), DflashCostAware(12, ENGINE))


def advice(verify_ms: list[float], rate: float, pass_ms: float = 1.0) -> Advice:
    """Under which a token is accepted as often as it is sure, and every pass brings one where all are accepted."""
    known = Calibration("any", {}, [], [], Curve([0.0, 1.0], [0.0, 1.0]), TABLE, TABLE, {})
    return Advice(known, pass_ms, verify_ms, rate)


# ---- what is decided -----------------------------------------------------------------------------------------------


def test_of_a_block_as_much_is_verified_as_gives_most() -> None:
    """Against every length, one by one; where a verification costs the same at every length, the whole block."""
    rng, reasons = random.Random(1), set()
    for _ in range(200):
        sure = [rng.random() ** 0.3 for _ in range(rng.randint(1, 12))]
        costs = [10.0 + rng.random() * length for length in range(13)]
        rate = rng.random() * 0.3
        length, reason = POLICIES[1].cut(sure, advice(costs, rate))
        gained = [0.0]
        for one in sure:
            gained.append(gained[-1] + (gained[-1] - gained[-2] if len(gained) > 1 else 1.0) * one)
        worth = [gained[count] - rate * costs[count] for count in range(1, len(sure) + 1)]
        assert worth[length - 1] == pytest.approx(max(worth))
        assert (reason == "max_len") == (length == len(sure))
        reasons.add(reason)
        assert POLICIES[1].cut(sure, advice([10.0] * 13, rate)) == (len(sure), "max_len")
    assert reasons == {"low_gain", "max_len"}


def test_a_token_more_is_drafted_while_it_pays_and_what_is_not_worth_it_is_not_verified() -> None:
    flat = POLICIES[0].ending(9, advice([10.0] * 13, 0.2))
    assert flat([0.9]) is None and flat([0.9, 0.8]) is None  # 0.72 * 6 more tokens, and 6 * 0.2 for their passes
    assert flat([0.9, 0.8, 0.1]) == ("low_gain", 3)
    steep = POLICIES[0].ending(9, advice([10.0 + length for length in range(13)], 0.3))
    assert steep([0.9]) is None and steep([0.9, 0.2]) == ("low_gain", 1)


def test_a_policy_without_advice_is_a_mistake_of_the_programs() -> None:
    with pytest.raises(ValueError, match="without advice"):
        POLICIES[1].cut([0.5])


def test_names_are_read_back() -> None:
    assert [spec.name for spec in POLICIES] == ["eagle3_ca_12_toy@P", "dflash_ca_12_toy@P"]
    for spec in (*POLICIES, Eagle3CostAware(7, "a_b@c_d"), Hybrid("suffix_64", POLICIES[0].name)):
        assert parse_name(spec.name) == spec


# ---- live, recorded, learnt, replayed ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A target with a head of either family that is right now and then, and a profile that prices them."""
    folder, target = tmp_path_factory.mktemp("family"), made_target("llama")
    texts = [[*prompt, *greedy] for prompt, greedy in questions(target)]
    save_model(folder / "target", target)
    save_head(folder / "eagle3", taught(toy_head("speculators", target, 5), target, texts[::2] * 3))
    save_dflash(folder / "dflash", taught_dflash(toy_dflash("DFlashDraftModel", target, 5), target, texts[1:]))
    prices = {"name": "P", "draft_pass_ms": 5.0, "family_pass_ms": {"eagle3": 1.0, "dflash": 2.0}, "provenance": {}}
    prices |= {"target_ms_per_token": {"toy": 10.0}, "verify_ms": {"toy": {"1": 10.0, "8": 17.0, "32": 45.0}}}
    (folder / "P.json").write_text(json.dumps(prices))
    del prices["family_pass_ms"]
    (folder / "bare.json").write_text(json.dumps(prices | {"name": "bare"}))
    return folder


def opened(home: Path, *drafters: str, **more: object) -> Session:
    where = {"target_model_name": "target", "eagle3_dir": "eagle3", "dflash_dir": "dflash"}
    named = {name: str(home / folder) for name, folder in where.items()}
    return open_session(RunConfig.of(**named, drafters=drafters, device="cpu", max_new_tokens=BUDGET, **more))


@pytest.fixture(scope="module")
def traces(home: Path) -> list[Trace]:
    """Of known and unknown texts, each through its file; one for each question."""
    session = opened(home, "plain", Eagle3Static(12).name, DflashStatic(5).name, record=True, record_batch=7)
    (job,), made = plan_traces(session, load_problems("bundled", question_ids=[1])), []
    for index, (prompt, _) in enumerate(questions(session.target().lm.model)):
        identity = dataclasses.replace(job.identity, question_id=index)
        job = dataclasses.replace(job, prompt_ids=prompt, path=home / "traces" / f"{index}.npz", identity=identity)
        save_trace(record_trace(session, job, lambda: None), job.path)
        made.append(load_trace(job.path))
    return made


def test_replay_equals_live_for_every_rate(home: Path, traces: list[Trace]) -> None:
    """Policies alone and as a hybrid's last part; texts are the target's own. Dear time makes drafts short."""
    profile, lengths, reasons = load_profile(str(home / "P.json")), dict[tuple[str, float], float](), set[str]()
    learnt = [calibrate.learn(traces[::2], name, [profile]) for name in ("dflash", "eagle3")]
    for rate in (0.01, 0.1, 0.4):
        path = home / f"{rate}.json"
        save_calibration(path, [dataclasses.replace(one, rates={ENGINE: rate}) for one in learnt])
        specs: list[Spec] = [*POLICIES, *(Hybrid("lookup_3_sf_10", spec.name) for spec in POLICIES)]
        how = {"calibration": str(path), "latency_profile": (str(home / "P.json"),), "latency_target": "toy"}
        session = opened(home, *(spec.name for spec in specs), **how)
        for spec in specs:
            drafted = []
            for trace in traces:
                live = run(session, trace, spec)
                known = trace.chains[str(spec.chains_name)].identity
                replayed = replay(trace, spec, advice=advice_of(spec, path, [profile], known))
                assert live.output_tokens == trace.output_tokens
                assert dataclasses.replace(replayed.identity, origin=LIVE) == live.identity
                assert_same(blank(live.rounds), blank(replayed.rounds))
                drafted += [turn.draft_len for turn in live.rounds]
                reasons |= {turn.stop_reason for turn in live.rounds}
            lengths[spec.name, rate] = sum(drafted) / len(drafted)
    assert reasons >= {"low_gain", "max_len", "none"}
    for spec in POLICIES:
        assert lengths[spec.name, 0.01] > lengths[spec.name, 0.4]


@pytest.mark.parametrize("drafter", ["eagle3_sf_5", "eagle3_df_0.5_9_3", "dflash_sf_4", "dflash_df_0.5_6_2"])
def test_hybrids_over_heads_are_replayed_as_they_run(home: Path, traces: list[Trace], drafter: str) -> None:
    by_first = [0, 0]
    specs = [Hybrid(first, drafter) for first in ("lookup_3_sf_10", "lookup_1_sf_3", "suffix_64", "suffix_64_s1.5")]
    session = opened(home, *(spec.name for spec in specs))
    for spec in specs:
        for trace in traces:
            live = run(session, trace, spec)
            assert live.output_tokens == trace.output_tokens
            assert_same(blank(live.rounds), blank(replay(trace, spec).rounds))
            for turn in live.rounds:
                by_first[turn.num_forward_passes > 0] += turn.draft_len > 0
    assert min(by_first) > 10


def run(session: Session, trace: Trace, spec: Spec) -> object:
    (problem,) = load_problems("bundled", question_ids=[1])
    identity = trace.identity.of_drafter(spec.name, session.results_identity(spec), LIVE)
    return run_job(session, Job(problem, trace.prompt_ids, spec, identity, Path("unused"), None), lambda: None)


def test_calibrate_learns_heads_where_a_profile_prices_them(home: Path, traces: list[Trace]) -> None:
    folder, profile = str(home / "traces"), str(home / "P.json")
    said = calibrate.run([folder, "--latency_profile", profile], "failfast calibrate")
    assert said.startswith("Learnt dflash, eagle3 from questions 0 2:")
    assert "--drafters dflash_ca eagle3_ca --sweep_max_spec_len" in said
    for spec in POLICIES:
        known = load_calibration(home / "traces" / "calibration.json", str(spec.chains_name))
        assert set(known.rates) == {ENGINE} and known.rates[ENGINE] > 0
        assert len(known.gains) == 1 and known.curve.acceptance == sorted(known.curve.acceptance)
    with pytest.raises(UserError, match=r"no --latency_profile says what a pass of dflash costs \(family_pass_ms\)"):
        calibrate.run([folder, "--latency_profile", str(home / "bare.json")])
    with pytest.raises(UserError, match="does not say what a pass of eagle3 costs"):
        advice_of(
            Eagle3CostAware(12, "toy@bare"),
            home / "traces" / "calibration.json",
            [load_profile(str(home / "bare.json"))],
            traces[0].chains["eagle3"].identity,
        )
