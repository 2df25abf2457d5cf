"""The measuring programs on tiny models: what they count, what they write, and how they grade and fail."""

from __future__ import annotations

import json
from ast import literal_eval
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from families import flags as failfast_flags
from families import save_family
from samples import make_record, make_round
from toys import random_ids, toy_model

from experiments import gpu_session, profile_overhead, profile_sampling, profile_speculation
from experiments.profile_speculation import Means, Script, ScriptedBlockDrafter, ScriptedTarget, Turn
from profiling import check_lossless, engine_candidates, profile_engine, tune_engine
from specdec.commands import rank
from specdec.commands.run import parse_args
from specdec.decoding.loop import speculate
from specdec.errors import UserError
from specdec.latency.profile import load_profile
from specdec.models.graph import plans
from specdec.models.graph.weights import join_weights
from specdec.models.int8 import quantised
from specdec.models.lm import CachedLM
from specdec.records.record import record_path, save_record
from specdec.session import open_session

pytestmark = pytest.mark.slow
TINY = ("--drafter", "tiny", "--device", "cpu")


@pytest.fixture(autouse=True)
def _threads(one_thread) -> None:
    """Toy matrices."""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the tiny shape, as profile_engine writes it."""
    folder = tmp_path_factory.mktemp("profile")
    arguments = [*TINY, "--targets", "tiny", "--contexts", "64", "--repeats", "2", "--out", str(folder)]
    assert profile_engine.main(arguments) == 0
    return folder / "here.json"


def flags(folder: Path, *more: str) -> list[str]:
    """A short command line over a tiny family, on the CPU."""
    family = save_family(folder)
    models = ["--target_model_name", str(family["target"]), "--ar_model_name", str(family["ar"])]
    return [*models, "--dllm_dir", str(family["dllm"]), "--device", "cpu", "--max_new_tokens", "24", *more]


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_profile_is_a_latency_profile_with_every_figure_behind_it(profile: Path) -> None:
    loaded = load_profile(profile)
    table = loaded.verify_ms["tiny-Instruct"]
    assert set(table) == {*profile_engine.VERIFY_COUNTS, 128, 129, 256, 257}
    assert loaded.target_ms_per_token["tiny-Instruct"] == table[1]
    details = loaded.provenance["details"]["drafter"]
    passes = details["by_context"]["64"]
    assert loaded.draft_pass_ms == passes["draft_step"]["ms"] and loaded.ar_draft_pass_ms == passes["verify(1)"]["ms"]
    assert passes["denoise"]["p10"] <= passes["denoise"]["ms"] <= passes["denoise"]["p90"]
    limit_ms = passes["denoise"]["limit_ms"]
    assert passes["denoise"]["over_limit"] == pytest.approx(passes["denoise"]["ms"] / limit_ms)
    assert limit_ms >= details["limit_ms"] == passes["verify(1)"]["limit_ms"]  # reading the weights, or multiplying


def test_bytes_of_a_pass_leave_out_an_embedding_that_is_not_the_head() -> None:
    for tie in (True, False):
        model = toy_model("qwen2", 1, tie=tie)
        embedding = model.get_input_embeddings().weight.numel()
        whole = sum(p.numel() for p in model.parameters())
        assert profile_engine.weight_bytes(CachedLM(model)) == 4 * (whole - (0 if tie else embedding))


def test_the_tuner_s_lines_are_those_that_the_engine_looks_up(monkeypatch) -> None:
    """Of 24 rows by the 32 of their tile; none for values that the engine takes no measured plan for."""
    half, model, plan = toy_model("qwen2", 1).bfloat16(), toy_model("qwen2", 1), plans.Plan(64, 32, 3, num_stages=4)
    full = join_weights(model, None)
    key = ("add", 24, 32, 128)
    line = tune_engine.table_line(join_weights(half, None), key, plan)
    place, _ = line["MEASURED_PLANS"].split(": Plan(")
    monkeypatch.setitem(plans.MEASURED_PLANS, literal_eval(place), plan)
    assert plans.measured_plan(*key, 2) == plan
    in_8_bits = join_weights(quantised(toy_model("qwen2", 1), torch.device("cpu")), None)
    assert tune_engine.table_line(full, key, plan) == tune_engine.table_line(in_8_bits, key, plan) == {}


def test_the_tuner_tries_what_is_not_usual(monkeypatch) -> None:
    plan, key = plans.Plan(64, 128, 2, num_stages=6), ("add", 16, 32, 4096)
    monkeypatch.setitem(plans.MEASURED_PLANS, key, plan)
    half, full = toy_model("qwen2", 1).bfloat16(), toy_model("qwen2", 1)
    tried = [engine_candidates.plans_to_try(join_weights(model, None), key) for model in (half, full)]
    assert [plan in one for one in tried] == [False, True] and tried[0][0] is tried[1][0] is None


def test_unknown_models_are_one_line(capsys) -> None:
    assert profile_engine.main(["--drafter", "no/such/folder", "--device", "cpu"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("means", [Means(14.6, 3.46, 6.7), Means(8, 8, 5.656), Means(2, 1, 2.5)])
def test_scripts_have_the_means_they_are_made_of(means: Means) -> None:
    turns = list(islice(profile_speculation.turns_of(means), 1000))
    assert sum(turn.num_passes for turn in turns) / 1000 == pytest.approx(means.num_passes, abs=2e-3)
    assert sum(turn.accepted_len + 1 for turn in turns) / 1000 == pytest.approx(means.emitted, abs=2e-3)
    assert sum(turn.draft_len for turn in turns) / 1000 == pytest.approx(means.draft_len, abs=0.3)
    assert all(turn.accepted_len <= turn.draft_len for turn in turns)


def test_a_scripted_run_emits_passes_and_drafts_as_it_is_told() -> None:
    model, turns = toy_model("qwen2", 2), [Turn(9, 3, 4), Turn(40, 5, 40), Turn(5, 1, 0), Turn(12, 4, 7)]
    script = Script(turns)
    target, drafter = ScriptedTarget(CachedLM(model), script), ScriptedBlockDrafter(CachedLM(model), script)
    rounds = speculate(target, drafter, random_ids(1, 50), max_new_tokens=55, stop_ids=())
    drafted = [(made.draft_len, made.num_forward_passes, made.accepted_len) for made in rounds]
    assert drafted == [(9, 3, 4), (40, 5, 40), (5, 1, 0), (7, 4, 7)]  # the last is cut: 8 tokens are still wanted
    assert [made.num_prefill_passes for made in rounds] == [1, 0, 1, 0]  # blocks end at 32, 64 and 96
    assert [made.num_commit_passes for made in rounds] == [0, 1, 0, 0]
    assert sum(len(made.emitted_tokens) for made in rounds) == 55


def test_speculation_reports_measured_beside_modelled(profile: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--profile", str(profile), "--target", "tiny", *TINY, "--context", "64", "--new_tokens", "40"]
    assert profile_speculation.main([*arguments, "--out", str(tmp_path)]) == 0
    result = last_json(capsys)
    assert json.loads((tmp_path / "speculation.json").read_text())["cases"].keys() == result["cases"].keys()
    for case in result["cases"].values():
        assert case["modelled_over_measured"] == pytest.approx(case["modelled_speedup"] / case["measured_speedup"])
        assert case["emitted_per_round"] > 4
    assert result["cases"]["paper_math_ar_8"]["passes_per_round"] > 7


def test_speculation_models_each_case_with_its_own_drafter_s_passes(profile: Path, tmp_path: Path, capsys) -> None:
    slow_ar = tmp_path / "slow_ar.json"
    slow_ar.write_text(json.dumps({**json.loads(profile.read_text()), "ar_draft_pass_ms": 1e5}))
    arguments = ["--profile", str(slow_ar), "--target", "tiny", *TINY, "--context", "64", "--new_tokens", "10"]
    assert profile_speculation.main([*arguments, "--out", str(tmp_path)]) == 0
    cases = last_json(capsys)["cases"]
    assert {name for name, case in cases.items() if case["modelled_speedup"] < 1e-3} == {"paper_math_ar_8"}


def test_speculation_wants_a_profile_of_its_target(profile: Path, capsys) -> None:
    assert profile_speculation.main(["--profile", str(profile), "--target", "Qwen2.5-7B", *TINY]) == 2
    assert "measure it with profile_engine" in capsys.readouterr().err


def test_lossless_checks_every_drafter(tmp_path: Path, capsys) -> None:
    assert check_lossless.main(flags(tmp_path, "--num_questions", "1")) == 0
    assert last_json(capsys)["grades"] == {"exact": 6}


def test_a_bug_fails_the_check(tmp_path: Path, capsys, monkeypatch) -> None:
    found = {"grades": Counter(exact=3, bug=1)}
    monkeypatch.setattr(check_lossless, "check", lambda *_: found)
    assert check_lossless.main(flags(tmp_path)) == 1


def test_overhead_is_what_passes_leave(tmp_path: Path, capsys) -> None:
    assert profile_overhead.main(flags(tmp_path, "--num_questions", "1")) == 0
    for figures in last_json(capsys)["drafters"].values():
        assert 0 < figures["passes_s"] < figures["total_s"] and figures["num_rounds"] > 0


def test_a_step_that_fails_or_hangs_is_reported_and_the_rest_goes_on(tmp_path: Path, monkeypatch) -> None:
    steps = {
        "good": ["-c", "print('{\"a\": 1}')"],
        "bad": ["-c", "raise SystemExit('no GPU')"],
        "slow": ["-c", "import time; time.sleep(3600)"],
        "last": ["-c", "print('text')"],
    }
    monkeypatch.setattr(gpu_session, "gpu_here", lambda: "GPU")
    monkeypatch.setattr(gpu_session, "steps", lambda *_: steps)
    assert gpu_session.main(["--out", str(tmp_path), "--only", "good", "bad", "last"]) == 0
    results = json.loads((tmp_path / "session.json").read_text())
    assert results["good"]["result"] == {"a": 1} and results["last"]["result"] == "text\n"
    assert results["bad"]["ended"] == "exit status 1" and "no GPU" in results["bad"]["result"]
    assert "no GPU" in (tmp_path / "log.txt").read_text()
    assert gpu_session.main(["--out", str(tmp_path), "--only", "slow", "--step_limit_s", "1"]) == 0
    assert json.loads((tmp_path / "session.json").read_text())["slow"]["ended"].startswith("stopped")
    assert gpu_session.main(["--out", str(tmp_path), "--limit_s", "5"]) == 0
    assert gpu_session.main(["--out", str(tmp_path), "--only", "none such"]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and all of the session would run")
def test_a_session_without_a_gpu_says_so(tmp_path: Path, capsys) -> None:
    assert gpu_session.main(["--out", str(tmp_path)]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_programs_that_decode_greedily_do_not_pretend_to_sample(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        check_lossless.main(flags(tmp_path, "--temperature", "1"))
    assert "unrecognized arguments: --temperature 1" in capsys.readouterr().err
    config = parse_args(failfast_flags(save_family(tmp_path), tmp_path, "--temperature", "1"))
    with pytest.raises(UserError, match="decodes greedily"):
        open_session(config).target()


def test_sampling_is_priced_in_pairs_of_equal_rounds(tmp_path: Path, capsys) -> None:
    how = ("--num_questions", "2", "--temperature", "1", "--draft_sampling", "sample", "--drafters", "ar_sf", "dllm_sf")
    line = flags(tmp_path, *how, "--drafter_thresholds", "0", "--spec_len", "4")
    assert profile_sampling.main(line) == 0
    for figures in last_json(capsys)["drafters"].values():
        assert 0 < figures["num_pairs"] <= figures["num_prefixes"]
        assert figures["ratio"]["p10"] <= figures["ratio"]["median"] <= figures["ratio"]["p90"]


def test_acceptance_rates_have_intervals(tmp_path: Path, capsys) -> None:
    for number in range(6):
        rounds = [make_round(3, tuple(range(3, 3 + number + 2)), number)]
        path = record_path(tmp_path, "bundled", "gsm8k", number, "ar_None_sf_3", 64)
        save_record(make_record(number, rounds=rounds), path)
    assert rank.main([str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["engines"][0]["rows"]
    assert row["drafter_name"] == "ar_None_sf_3" and row["acceptance_rate"] == pytest.approx(15 / 27, abs=1e-4)
    assert row["acceptance_rate_low"] < row["acceptance_rate"] < row["acceptance_rate_high"]
    assert rank.main([str(tmp_path / "empty"), "--json"]) == 2
