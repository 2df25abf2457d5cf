"""The profilers of servers, against a small server: what they print, the profiles they write, and how they refuse."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from fake_server import HANG_S, STEPS, FakeServer, answer, sglang_metrics, status, stream, text_chunk, vllm_metrics

from profiling import profile_dataset_output, profile_tpt_sglang, profile_tpt_vllm, profile_tpt_vllm_eagle3
from specdec.latency import profile as latency
from specdec.latency.profile import load_profile
from specdec.records.provenance import provenance


@pytest.fixture(autouse=True)
def profile_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Profiles are written there, not among the project's own."""
    folder = tmp_path / "latency"
    folder.mkdir()
    monkeypatch.setattr(latency, "WRITTEN_DIR", folder)
    return folder


def flags(server: FakeServer, *more: str) -> list[str]:
    return [
        "--target_model_name",
        "org/big",
        "--base_url",
        server.url,
        "--num_questions",
        "3",
        "--timeout_s",
        "600",
        *more,
    ]


def run(program, server: FakeServer, *more: str) -> int:
    return program.main(flags(server, *more))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def saved(folder: Path, name: str, program, capsys, *replies, metrics=None, clock=None, more=()) -> Path:
    """What a profiler prints, in a file."""
    with FakeServer(list(replies), metrics=metrics, clock=clock) as server:
        assert run(program, server, *more) == 0
    path = folder / f"{name}.json"
    path.write_text(capsys.readouterr().out)
    return path


def test_plain_decoding_is_printed_with_medians_spread_and_trials(clock, capsys):
    with FakeServer([answer(6, gap_s=0.01)], metrics=vllm_metrics(), clock=clock) as server:
        assert run(profile_tpt_vllm, server, "--repeats", "2") == 0
    found = last_json(capsys)
    assert (found["engine"], found["engine_version"], found["target"]) == ("vLLM", "0.13.0", "big")
    assert found["speculates"] == "no"
    assert found["num_trials"] == found["num_valid"] == 6 and found["tokens_counted_by"] == {"usage": 6}
    assert found["ms_per_token"] == pytest.approx(dict.fromkeys(("median", "p10", "p90"), 10 * 6 / 5) | {"num": 6})
    assert found["ttft_ms"]["num"] == found["ttft_repeated_ms"]["num"] == 3
    assert len(server.requests) == 8  # two warm up
    assert len({request["messages"][0]["content"] for request in server.requests}) == 4
    assert found["speculation"] is None and found["provenance"]["git_revision"] == provenance(None)["git_revision"]


def test_several_questions_at_once(capsys):
    """Nobody is answered before all six have asked."""
    all_six, reply = threading.Barrier(6), answer(6)

    def together(handler) -> None:
        all_six.wait(HANG_S)
        reply(handler)

    with FakeServer([reply, together]) as server:
        assert run(profile_tpt_vllm, server, "--repeats", "2", "--concurrency", "6", "--warm_up", "1") == 0
    found = last_json(capsys)
    assert found["concurrency"] == found["num_valid"] == 6 and found["tokens_per_s"] > 0


def test_a_profile_grows_by_target_and_prices_at_once(tmp_path, profile_dir, clock, capsys):
    drafter = saved(tmp_path, "drafter", profile_tpt_vllm, capsys, answer(6), clock=clock)
    more = ("--write_profile", "here", "--hardware", "GPU")
    with FakeServer([answer(6, gap_s=0.01)], clock=clock) as server:
        assert run(profile_tpt_vllm, server, *more, "--drafter", str(drafter)) == 0
        assert f"latency profile: {profile_dir / 'here.json'}" in capsys.readouterr().err
        assert run(profile_tpt_vllm, server, *more, "--target_model_name", "org/bigger") == 0
    profile = load_profile("here")
    assert profile.target_ms_per_token == pytest.approx({"big": 10 * 6 / 5, "bigger": 10 * 6 / 5})
    assert profile.draft_pass_ms == json.loads(drafter.read_text())["ms_per_token"]["median"]
    assert profile.draft_pass_ms == pytest.approx(2 * 6 / 5)
    assert set(profile.provenance["targets"]) == {"big", "bigger"} and profile.provenance["draft"]["engine"] == "vLLM"
    assert profile.title == "here"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--hardware", "GPU"), "give --drafter"),
        (("--drafter", "drafter"), "needs --hardware"),
        (("--hardware", "GPU", "--drafter", "nowhere"), "cannot read nowhere"),
        (("--hardware", "GPU", "--drafter", __file__), "does not end with the JSON"),
        (("--hardware", "GPU", "--drafter", "drafter", "--concurrency", "2"), "leave out --concurrency"),
        (("--hardware", "GPU", "--drafter", "drafter", "--num_questions", "1", "--repeats", "2"), "needs 3 trials"),
        (("--hardware", "GPU", "--drafter", "drafter", "--write_profile", "a/b"), "'a/b' is not a name"),
        (("--hardware", "other", "--drafter", "drafter", "--write_profile", "taken"), "hardware 'GPU' and not 'other'"),
        (("--hardware", "GPU", "--drafter", "drafter", "--write_profile", "vLLM_A6000"), "comes with the program"),
    ],
    ids=["no_drafter", "no_hardware", "no_file", "no_json", "at_once", "too_few", "name", "taken", "ours"],
)
def test_no_profile_is_written_from_less_than_it_needs(more, why, profile_dir, capsys):
    profile = {"name": "drafter", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "verify_ms": {}}
    origin = {"measured_by_this_project": True, "engine": "vLLM", "hardware": "GPU"}
    for name in ("drafter", "taken"):
        (profile_dir / f"{name}.json").write_text(json.dumps({**profile, "name": name, "provenance": origin}))
    before = sorted(path.read_text() for path in profile_dir.iterdir())
    with FakeServer([answer(6)]) as server:
        assert run(profile_tpt_vllm, server, "--write_profile", "here", *more) == 2
    output = capsys.readouterr()
    assert why in output.err.splitlines()[-1]
    # Only the number of trials is not known before they are made; then what was measured is not lost.
    assert bool(server.requests) == bool(output.out) == ("trials" in why)
    assert sorted(path.read_text() for path in profile_dir.iterdir()) == before


def test_trials_that_cannot_count_are_left_out_and_too_few_make_no_profile(profile_dir, capsys):
    empty = stream([text_chunk(), text_chunk("", "stop")])
    more = ["--warm_up", "1", "--repeats", "1", "--num_questions", "4"]
    with FakeServer([answer(6), answer(6), empty, answer(6), answer(6)]) as server:
        assert run(profile_tpt_vllm, server, *more) == 0
        found = last_json(capsys)
    assert found["num_valid"] == 3 and "empty answer" in found["left_out"][0]["why"]
    more += ["--write_profile", "here", "--hardware", "GPU"]
    profile = {"name": "d", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
    (profile_dir / "d.json").write_text(json.dumps(profile))
    with FakeServer([answer(6), answer(6), empty, empty, answer(6)]) as server:
        assert run(profile_tpt_vllm, server, *more, "--drafter", "d") == 2
    assert "needs 3 trials that count, and 2 do: http" in capsys.readouterr().err
    assert not (profile_dir / "here.json").exists()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (status(404, {"error": {"message": "no such model"}}), "no such model: asked for the model 'org/big'"),
        (status(401, ""), "OPENAI_API_KEY"),
        (stream([text_chunk(), text_chunk("", "stop")]), "none of 9 trials can count; the first: http"),
    ],
    ids=["model", "key", "empty"],
)
def test_a_server_that_cannot_be_measured_is_one_line_that_names_it(reply, why, capsys):
    with FakeServer([reply]) as server:
        assert run(profile_tpt_vllm, server) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("python -m profiling.profile_tpt_vllm: error: ") and why in error and server.url in error


def test_plain_decoding_is_not_measured_on_a_server_that_speculates(capsys):
    with FakeServer([answer(10)], metrics=vllm_metrics(4)) as server:
        assert run(profile_tpt_vllm, server) == 2
        assert run(profile_tpt_vllm, server, "--concurrency", "3") == 2
        assert run(profile_tpt_sglang, server) == 2
    error = capsys.readouterr().err
    assert error.count("so this is not plain decoding") == 3 and "use profile_tpt_vllm_eagle3" in error


def test_eagle3_gives_its_acceptance_length_a_row_and_a_profile_by_difference(tmp_path, clock, capsys):
    once = ["--repeats", "1"]
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11, gap_s=0.012), clock=clock, more=once)
    more = ["--vanilla", str(vanilla), "--repeats", "2", "--write_profile", "eagle", "--hardware", "GPU"]
    metrics = vllm_metrics(4, accepted=(3, 2, 1))
    with FakeServer([answer(11, gap_s=0.006)], metrics=metrics, clock=clock) as server:
        assert run(profile_tpt_vllm_eagle3, server, *more) == 0
    found = last_json(capsys)
    speculation = found["speculation"]
    assert speculation["num_drafts"] == 6 * 4 and speculation["accepted_per_position"] == [18, 12, 6]
    assert speculation["acceptance_len"] == 2.5 and "bonus included" in speculation["acceptance_len_is"]
    row = found["row"]
    assert row["drafter_name"] == "eagle3_vllm_3" and [one["question_id"] for one in row["questions"]] == [0, 1, 2]
    assert all(one["num_drafts"] == 4 and one["num_accepted"] == 6 for one in row["questions"])
    speedups = [one["vanilla_ms_per_token"] / one["ms_per_token"] for one in row["questions"]]
    assert speedups == pytest.approx([2, 2, 2])
    profile = load_profile("eagle")
    plain = json.loads(vanilla.read_text().splitlines()[-1])["ms_per_token"]["median"]
    assert profile.target_ms_per_token == {"big": plain}
    assert profile.draft_pass_ms == pytest.approx((2.5 * found["ms_per_token"]["median"] - plain) / 3)


def test_two_draft_lengths_price_a_drafted_token_and_the_step(tmp_path, profile_dir, clock, capsys):
    """Steps of 3 drafted tokens take 15 ms, of 5 take 19: a token 2 ms, the step 9; plain tokens take 12."""
    once = ("--repeats", "1")
    vanilla = saved(
        tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11, gap_s=0.012 / 1.1), clock=clock, more=once
    )
    asked = ("--vanilla", str(vanilla), "--method", "draft_model", *once)
    three, five = (vllm_metrics(4, each, (3, 2, 1), steps_per_answer=4) for each in (3, 5))
    with FakeServer([answer(11, gap_s=0.004 * 15 / 11)], metrics=three, clock=clock) as server:
        assert run(profile_tpt_vllm_eagle3, server, *asked, "--out", str(tmp_path / "three.json")) == 0
    more = ("--other_length", str(tmp_path / "three.json"), "--write_profile", "steps", "--hardware", "GPU")
    with FakeServer([answer(11, gap_s=0.004 * 19 / 11)], metrics=five, clock=clock) as server:
        assert run(profile_tpt_vllm_eagle3, server, *asked, *more) == 0
        profile = load_profile("steps")
        assert profile.draft_pass_ms == pytest.approx(2) and profile.target_ms_per_token["big"] == pytest.approx(12)
        assert profile.verify_ms["big"] == pytest.approx({1: 12, 4: 9, 6: 9}) and not profile.family_pass_ms
        again = [*asked[:2], "--method", "eagle3", *once, *more[:2], "--write_profile", "head", *more[4:]]
        assert run(profile_tpt_vllm_eagle3, server, *again) == 0
        assert load_profile("head").family_pass_ms == pytest.approx({"eagle3": 2})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"engine": "SGLang"}, "was made with engine 'SGLang'"),
        ({"speculates": "no"}, "is not of a server that speculates"),
        ({"trials": []}, "no rounds and times"),
        ({}, "in as long rounds as this"),
    ],
)
def test_another_length_that_tells_nothing_is_refused(change, why, tmp_path, profile_dir, clock, capsys):
    metrics = vllm_metrics(4, steps_per_answer=4)
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11), clock=clock, more=("--repeats", "1"))
    asked, other = ("--vanilla", str(vanilla), "--repeats", "1"), tmp_path / "other.json"
    with FakeServer([answer(11)], metrics=metrics, clock=clock) as server:
        assert run(profile_tpt_vllm_eagle3, server, *asked, "--out", str(other)) == 0
        other.write_text(json.dumps(json.loads(other.read_text()) | change))
        assert run(profile_tpt_vllm_eagle3, server, *asked, "--other_length", str(other)) == 2
        assert "give --write_profile and --vanilla" in capsys.readouterr().err
        more = ("--other_length", str(other), "--write_profile", "none_such", "--hardware", "GPU")
        assert run(profile_tpt_vllm_eagle3, server, *asked, *more) == 2
    assert why in capsys.readouterr().err and not (profile_dir / "none_such.json").exists()


def test_sglang_has_gauges_and_its_counts_are_derived(tmp_path, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_sglang, capsys, answer(11), metrics=sglang_metrics())
    with FakeServer([answer(11)], metrics=sglang_metrics(2.5, 0.5)) as server:
        assert run(profile_tpt_sglang, server, "--vanilla", str(vanilla)) == 0
    found = last_json(capsys)
    assert found["speculation"]["is_derived"] and found["speculation"]["acceptance_len"] == 2.5
    assert found["row"]["drafter_name"] == "eagle3_sglang_3"


def test_eagle3_wants_metrics_that_tell_and_a_vanilla_run_alike(tmp_path, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(10))
    with FakeServer([answer(10)], metrics=vllm_metrics()) as server:
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla)) == 2
        assert "/metrics tells of no speculation" in capsys.readouterr().err
    with FakeServer([answer(10)], metrics=vllm_metrics(4)) as server:
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla), "--max_new_tokens", "9") == 2
        assert "made with max_new_tokens 256" in capsys.readouterr().err and not server.requests
        assert run(profile_tpt_vllm_eagle3, server, "--write_profile", "e", "--hardware", "GPU", "--drafter", "d") == 2
        assert "cannot read d" in capsys.readouterr().err
        (tmp_path / "none.json").write_text('{"ms_per_token": {"median": 1.0}}')
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(tmp_path / "none.json")) == 2
        assert "holds no trials" in capsys.readouterr().err
        more = ("--vanilla", str(vanilla), "--question_ids", "7")
        assert run(profile_tpt_vllm_eagle3, server, *more) == 2
        assert "lacks question 7" in capsys.readouterr().err


@pytest.mark.parametrize("page", ["<html>", "a{", "\x00", "vllm:spec_decode_num_drafts NaN", "a 1_0"])
def test_metrics_that_cannot_be_read_are_one_line_and_plain_decoding_does_without(page, capsys):
    with FakeServer([answer(10)], metrics=lambda answers, tokens: page) as server:
        assert run(profile_tpt_vllm_eagle3, server) == 2
        assert "tells of no speculation" in capsys.readouterr().err.splitlines()[-1]
        assert run(profile_tpt_vllm, server) == 0
    assert last_json(capsys)["speculation"] is None


def test_unknown_is_not_no(tmp_path, profile_dir, capsys):
    """In what is printed, in a profile, in the row, and in one line for people."""
    more = ["--write_profile", "here", "--hardware", "GPU", "--drafter", "d"]
    drafter = {"name": "d", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
    (profile_dir / "d.json").write_text(json.dumps(drafter))
    with FakeServer([answer(10)]) as server:
        assert run(profile_tpt_vllm, server, *more) == 0
    output = capsys.readouterr()
    (line,) = [one for one in output.err.splitlines() if one.startswith("warning")]
    assert f"{server.url.removesuffix('/v1')}/metrics does not say whether the server speculates" in line
    assert json.loads(output.out.splitlines()[-1])["speculates"] == "unknown"
    assert load_profile("here").provenance["targets"]["big"]["speculates"] == "unknown"
    said = {}
    for metrics in (None, vllm_metrics()):
        vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(10), metrics=metrics)
        with FakeServer([answer(10)], metrics=vllm_metrics(4)) as server:
            assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla)) == 0
        found = last_json(capsys)
        said[found["vanilla_speculates"]] = found["row"]["vanilla_speculates"]
        assert found["speculates"] == "yes"
    assert said == {"unknown": "unknown", "no": "no"}


@pytest.mark.parametrize(("method", "status", "says"), [(None, 0, "no"), ("EAGLE3", 2, "yes")])
def test_sglang_without_metrics_says_in_its_settings_whether_it_speculates(method, status, says, monkeypatch, capsys):
    monkeypatch.setattr(FakeServer, "settings", {"speculative_algorithm": method})
    with FakeServer([answer(10)]) as server:
        assert run(profile_tpt_sglang, server) == status
    output = capsys.readouterr()
    assert "warning" not in output.err
    assert ("speculates, so this is not plain" in output.err) == (says == "yes")
    assert not output.out or json.loads(output.out.splitlines()[-1])["speculates"] == says


@pytest.mark.parametrize("change", [{"speculates": "yes"}, {"speculation": {"num_drafts": 3}}, {"reason": "abort"}])
def test_a_vanilla_that_is_none_is_refused(change, tmp_path, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(10), metrics=vllm_metrics())
    found = json.loads(vanilla.read_text().splitlines()[-1]) | change
    found["trials"][0]["finish_reason"] = change.get("reason", "stop")
    vanilla.write_text(json.dumps(found))
    with FakeServer([answer(10)], metrics=vllm_metrics(4)) as server:
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla)) == 2
    assert "--vanilla " in capsys.readouterr().err and not server.requests


def served(folder: Path, capsys, clock, *more: str, metrics, program=profile_tpt_vllm_eagle3, status=0) -> dict:
    """What a profiler finds of a server that speculates, with its errors under "err"."""
    vanilla = saved(folder, "vanilla", profile_tpt_vllm, capsys, answer(11), clock=clock, more=("--repeats", "1"))
    with FakeServer([answer(11)], metrics=metrics, clock=clock) as server:
        assert run(program, server, "--vanilla", str(vanilla), *more) == status
    output = capsys.readouterr()
    return {**(json.loads(output.out.splitlines()[-1]) if output.out else {}), "err": output.err}


def test_rows_are_named_by_the_method_and_count_rounds_and_tokens_truly(tmp_path, clock, capsys):
    metrics = vllm_metrics(2, drafted_each=5, accepted=(1, 1, 0, 0, 0, 0, 0, 0), steps_per_answer=8)
    found = served(tmp_path, capsys, clock, "--method", "ngram", "--repeats", "1", metrics=metrics)
    assert found["row"]["drafter_name"] == "ngram_vllm_8"  # as many as it can draft, not as many as it did
    assert all(one["num_rounds"] == 8 and one["num_emitted"] == 10 for one in found["row"]["questions"])
    assert found["speculation"]["acceptance_len"] == 10 / 8 and found["speculation"]["server_acceptance_len"] == 2.0
    assert "warning" not in found["err"].replace("warning: http", "")
    found = served(tmp_path, capsys, clock, "--repeats", "1", metrics=metrics)
    assert found["row"]["drafter_name"] == "speculation_vllm_8"
    assert "18 of 24 rounds had no draft, so this is not eagle3: give --method" in found["err"]


@pytest.mark.parametrize("method", ["a b", "../x", "", "x" * 61])
def test_a_method_is_one_word(method, capsys):
    with FakeServer([answer(11)]) as server, pytest.raises(SystemExit):
        run(profile_tpt_vllm_eagle3, server, "--method", method)
    assert "is not the name of a method" in capsys.readouterr().err


def test_sglang_names_its_method_itself(tmp_path, monkeypatch, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_sglang, capsys, answer(11), metrics=sglang_metrics())
    monkeypatch.setattr(FakeServer, "settings", {"speculative_algorithm": "STANDALONE"})
    with FakeServer([answer(11)], metrics=sglang_metrics(2.5, 0.5)) as server:
        assert run(profile_tpt_sglang, server, "--vanilla", str(vanilla)) == 0
    assert last_json(capsys)["row"]["drafter_name"] == "standalone_sglang_3"


def remembering(num_answers: int, num_tokens: int) -> str:
    """Two warm up, three are first answers: 6 of 12 drafted tokens accepted; all of them when they are asked again."""
    again = max(0, num_answers - 5)
    counts = {"drafts": 2 * num_answers, "draft_tokens": 12 * num_answers}
    counts |= {"accepted_tokens": 6 * (num_answers - again) + 9 * again}
    lines = [f"vllm:spec_decode_num_{name}_total {count}" for name, count in counts.items()]
    steps = 4 * (num_answers - again) + 2 * again
    return "\n".join([f"vllm:generation_tokens_total {num_tokens}", f"{STEPS}_count {steps}", *lines]) + "\n"


def test_repeats_of_a_server_that_remembers_are_left_out(tmp_path, clock, capsys):
    found = served(tmp_path, capsys, clock, "--method", "suffix", "--repeats", "3", metrics=remembering)
    assert found["num_valid"] == 3 and len(found["left_out"]) == 6
    assert found["speculation"]["num_rounds"] == 12 and found["speculation"]["acceptance_len"] == 2.5
    assert [one["num_rounds"] for one in found["row"]["questions"]] == [4, 4, 4]
    assert "5.00 tokens a round, 2.50 at first): the server remembers answers; 6 repeats are left out" in found["err"]


def test_a_server_of_the_wrong_kind_is_known_by_the_warm_up(tmp_path, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11))
    pairs = [(profile_tpt_vllm, vllm_metrics(4), ()), (profile_tpt_vllm_eagle3, vllm_metrics(), ("--vanilla", vanilla))]
    for program, metrics, more in pairs:
        with FakeServer([answer(11)], metrics=metrics) as server:
            assert run(program, server, *map(str, more)) == 2
        assert len(server.requests) == 2
        assert "speculat" in capsys.readouterr().err


def test_more_tokens_than_the_context_holds_are_said_to_be_that(capsys):
    refusal = status(400, {"error": {"message": "'max_tokens' is too large: 2000. The model's context length"}})
    with FakeServer([refusal], models={"data": [{"id": "org/big"}]}) as server:
        assert run(profile_tpt_vllm, server, "--max_new_tokens", "2000") == 2
    error = capsys.readouterr().err
    assert "ask for fewer tokens (--max_new_tokens)" in error and "--target_model_name" not in error


@pytest.mark.parametrize(("key", "value"), [("engine_version", "0.12.0"), ("hardware", "other")])
def test_a_vanilla_of_another_version_or_machine_is_refused(key, value, tmp_path, capsys):
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11), metrics=vllm_metrics())
    vanilla.write_text(json.dumps(json.loads(vanilla.read_text().splitlines()[-1]) | {key: value}))
    with FakeServer([answer(11)], metrics=vllm_metrics(4)) as server:
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla), "--hardware", "GPU") == 2
    assert f"--vanilla was made with {key} '{value}'" in capsys.readouterr().err and not server.requests


def test_questions_at_once_beside_somebody_else_s_are_not_counted(tmp_path, capsys):
    more = ("--concurrency", "3")
    vanilla = saved(tmp_path, "vanilla", profile_tpt_vllm, capsys, answer(11), more=more)
    shared = vllm_metrics(4)
    with FakeServer([answer(11)], metrics=lambda answers, tokens: shared(answers, 2 * tokens)) as server:
        assert run(profile_tpt_vllm_eagle3, server, "--vanilla", str(vanilla), *more) == 2
    assert "while nobody else does" in capsys.readouterr().err


def test_lengths_of_answers_may_come_from_a_server_that_speculates(profile_dir, capsys):
    drafter = {"name": "d", "draft_pass_ms": 2.0, "target_ms_per_token": {"a": 9.0}, "provenance": {}}
    (profile_dir / "d.json").write_text(json.dumps(drafter))
    with FakeServer([answer(11)], metrics=vllm_metrics(4)) as server:
        assert run(profile_dataset_output, server) == 0
        assert last_json(capsys)["speculates"] == "yes"
        assert run(profile_dataset_output, server, "--write_profile", "x", "--hardware", "GPU", "--drafter", "d") == 2
    assert "so this is not plain decoding" in capsys.readouterr().err


def test_somebody_else_s_tokens_are_not_counted(capsys):
    """Counters that moved further than the answer: another client was there, or a try that failed."""
    shared = vllm_metrics(4)
    with FakeServer([answer(10)], metrics=lambda answers, tokens: shared(answers, 2 * tokens)) as server:
        assert run(profile_tpt_vllm_eagle3, server) == 2
    assert "while nobody else does" in capsys.readouterr().err


def test_output_lengths_by_data_set(capsys):
    replies = [answer(6), answer(6), answer(4), answer(5), answer(9)]
    with FakeServer(replies) as server:
        assert run(profile_dataset_output, server, "--datasets", "bundled") == 0
    found = last_json(capsys)["lengths"]["bundled"]
    assert found["output_tokens"]["median"] == 5 and found["output_tokens"]["num"] == 3 and found["num_cut_off"] == 0
