"""Latency: the formula on worked examples and on published totals, and every malformed profile."""

import copy
import dataclasses
import json

import pytest
from made_up import made_up_trace

from specdec.decoding.chains import Chain, Chains
from specdec.drafters.dflash import DflashStatic
from specdec.errors import UserError
from specdec.latency.asked import PricingConfig
from specdec.latency.pricing import Price, Pricing, measured, price
from specdec.latency.profile import LatencyProfile, known_profiles, load_profile, resolve_target, verification_ms
from specdec.ranking.oracle import TraceJudges
from specdec.records.identity import Identity
from specdec.records.record import Record
from specdec.records.rounds import Round
from specdec.traces.replay import replay

TARGET = "Qwen2.5-7B-Instruct"
# Totals that a third party reported for FailFast with a 7B target on 50 MATH questions.
THIRD_PARTY = {"output_tokens": 26804, "accepted": 23570, "drafted": 44608, "rounds": 3342, "passes": 10871}
PLAIN_JSON = {
    "name": "here",
    "draft_pass_ms": 2.0,
    "target_ms_per_token": {"big": 10.0},
    "verify_ms": {"big": {"1": 10.0, "9": 18.0, "17": 50}},
    "provenance": {"source": "made up"},
}


def make_round(draft_len, accepted_len, *, passes=1, draft_ms=1.0, verify_ms=2.0, has_next=True):
    """A round whose tokens do not matter."""
    return Round(
        prefix_len=10,
        draft_tokens=[5] * draft_len,
        confidences=[],
        num_prefill_passes=0,
        num_denoise_passes=passes,
        num_commit_passes=0,
        stop_reason="length",
        accepted_len=accepted_len,
        next_token=6 if has_next else None,
        draft_ms=draft_ms,
        verify_ms=verify_ms,
    )


def make_record(rounds, question_id=0):
    """A record of which only the rounds matter."""
    return Record(
        identity=Identity("made_up", "made_up", question_id, "dllm_0.05_sf_8", 64),
        provenance={},
        prompt_ids=[1, 2],
        raw_data={},
        output_text="",
        prefill_ms=100.0,
        rounds=rounds,
    )


def write_profile(folder, raw):
    path = folder / "profile.json"
    path.write_text(json.dumps(raw))
    return path


# --- the formula ---


def test_price_of_a_flat_profile():
    profile = LatencyProfile("flat", 2.0, {"big": 10.0}, {}, {})
    # 4 + 1 and 1 + 1 tokens out of 2 rounds, 3 + 2 passes
    record = make_record([make_round(8, 4, passes=3), make_round(8, 1, passes=2)])
    assert price(record, profile, "org/big") == Price(draft_ms=10.0, verify_ms=20.0, baseline_ms=70.0)
    assert price(record, profile, "big").speedup == pytest.approx(70 / 30)
    assert price(record, profile, "big").total_ms == 30.0
    assert price(record, profile, "big").drafter_share == pytest.approx(1 / 3)


def test_price_of_a_profile_with_a_table(tmp_path):
    profile = load_profile(write_profile(tmp_path, PLAIN_JSON))
    record = make_record([make_round(8, 4), make_round(0, 0, passes=0), make_round(40, 2)])
    assert price(record, profile, "big").verify_ms == 18.0 + 10.0 + 50.0
    assert price(record, profile, "big").baseline_ms == 90.0


def test_plain_decoding_has_a_speedup_of_one():
    record = make_record([make_round(0, 0, passes=0)] * 7)
    assert price(record, load_profile("vLLM_A6000"), TARGET).speedup == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("num_tokens", "expected"),
    [(1, 10.0), (5, 14.0), (9, 18.0), (13, 34.0), (17, 50.0), (18, 50.0), (999, 50.0)],
)
def test_verification_is_linear_between_points_and_flat_beyond(num_tokens, expected, tmp_path):
    profile = load_profile(write_profile(tmp_path, PLAIN_JSON))
    assert verification_ms(profile, "big", num_tokens) == pytest.approx(expected)


def test_verification_is_flat_below_the_first_point():
    profile = LatencyProfile("high", 1.0, {"big": 10.0}, {"big": {8: 3.0, 16: 5.0}}, {})
    assert verification_ms(profile, "big", 1) == 3.0


def spread(total, parts):
    """`total` as `parts` integers that differ by at most one."""
    return [total // parts + (i < total % parts) for i in range(parts)]


def test_published_totals_give_the_published_speedup():
    rounds = THIRD_PARTY["rounds"]
    # 26804 emitted in 3342 rounds: some rounds end without a token of the target's own
    emitted_by_target = THIRD_PARTY["output_tokens"] - THIRD_PARTY["accepted"]
    record = make_record(
        [
            make_round(drafted, accepted, passes=passes, has_next=i < emitted_by_target)
            for i, (drafted, accepted, passes) in enumerate(
                zip(
                    spread(THIRD_PARTY["drafted"], rounds),
                    spread(THIRD_PARTY["accepted"], rounds),
                    spread(THIRD_PARTY["passes"], rounds),
                    strict=True,
                )
            )
        ]
    )
    assert record.num_output_tokens == THIRD_PARTY["output_tokens"]
    asked = price(record, load_profile("vLLM_A6000"), "Qwen/Qwen2.5-7B-Instruct")
    assert asked.draft_ms == pytest.approx(6.1 * 10871)
    assert asked.verify_ms == pytest.approx(13.5 * 3342)
    assert round(asked.speedup, 2) == 3.25


# --- measured ---


def test_measured_is_the_wall_clock_of_the_rounds():
    record = make_record([make_round(4, 3, draft_ms=2.0, verify_ms=5.0)] * 2)
    baseline = make_record([make_round(0, 0, passes=0, draft_ms=0.5, verify_ms=3.5)] * 8)
    assert measured(record, baseline) == Price(draft_ms=4.0, verify_ms=10.0, baseline_ms=32.0)


def test_measured_scales_a_baseline_of_another_length():
    record = make_record([make_round(4, 3)])
    baseline = make_record([make_round(0, 0, draft_ms=0.0, verify_ms=3.0)] * 2)
    assert measured(record, baseline).baseline_ms == 12.0


def test_the_baseline_against_itself_is_one():
    baseline = make_record([make_round(0, 0)] * 3)
    assert measured(baseline, baseline).speedup == pytest.approx(1.0)


def test_another_questions_baseline_is_a_bug():
    with pytest.raises(ValueError, match="question 0 against baseline 1"):
        measured(make_record([make_round(0, 0)]), make_record([make_round(0, 0)], question_id=1))


def test_an_ar_pass_has_a_price_of_its_own_where_the_profile_names_one(tmp_path):
    path = tmp_path / "here.json"
    path.write_text(json.dumps({**PLAIN_JSON, "ar_draft_pass_ms": 0.5}))
    record = make_record([make_round(4, 2, passes=5)])
    of_ar = dataclasses.replace(record, identity=dataclasses.replace(record.identity, drafter="ar_None_sf_4"))
    assert price(record, load_profile(path), "big").draft_ms == 10.0
    assert price(of_ar, load_profile(path), "big").draft_ms == 2.5
    path.write_text(json.dumps(PLAIN_JSON))
    assert price(of_ar, load_profile(path), "big").draft_ms == 10.0
    path.write_text(json.dumps({**PLAIN_JSON, "ar_draft_pass_ms": -1}))
    with pytest.raises(UserError, match="ar_draft_pass_ms"):
        load_profile(path)


def test_a_heads_pass_may_cost_something_else_beside_every_target(tmp_path):
    """Each target has its own price; one that is not named has none, and drafters of that family are not priced."""
    targets = {"target_ms_per_token": {"big": 10.0, "small": 3.0, "other": 5.0}, "verify_ms": {}}
    families = {"family_pass_ms": {"dflash": {"big": 4.0, "small": 1.5}, "eagle3": 0.5}}
    profile = load_profile(write_profile(tmp_path, {**PLAIN_JSON, **targets, **families}))
    record = make_record([make_round(4, 2), make_round(4, 2)])
    of_head = dataclasses.replace(record, identity=dataclasses.replace(record.identity, drafter="dflash_sf_4"))
    assert [price(of_head, profile, entry).draft_ms for entry in ("big", "small")] == [8.0, 3.0]
    engines = {entry: Pricing((profile,), entry).prices(of_head) for entry in targets["target_ms_per_token"]}
    assert [len(prices) for prices in engines.values()] == [1, 1, 0]
    with pytest.raises(UserError, match="does not say what a pass of dflash costs beside other"):
        price(of_head, profile, "other")
    assert profile.families("other") == {"eagle3": 0.5} and profile.knows("block", "other")
    trace = made_up_trace(1, num_tokens=12)
    blocks = [Chain(one.tokens, one.confidences, [1] * 5, [0], [0], []) for one in trace.chains["ar"].chains]
    dflash = {"dflash": Chains.pack("dflash", {"drafter_sha256": "d"}, 5, blocks)}
    record = replay(dataclasses.replace(trace, chains=dflash), DflashStatic(3))
    for entry, dear in (("big", True), ("small", True), ("other", False)):
        judges = TraceJudges(dataclasses.replace(trace, chains=dflash), Pricing((profile,), entry))
        ceilings = judges.ceilings(record)
        assert len(ceilings) == dear
        for one in ceilings.values():
            assert one.total_ms == pytest.approx(price(record, profile, entry).total_ms) and one.share <= 1


def test_an_empty_record_has_no_price():
    empty, full = make_record([]), make_record([make_round(0, 0)])
    with pytest.raises(UserError, match="no output"):
        price(empty, load_profile("vLLM_A6000"), TARGET)
    for pair in ((empty, full), (full, empty)):
        with pytest.raises(UserError, match="no output"):
            measured(*pair)


# --- profiles ---


def test_the_papers_profile():
    profile = load_profile("vLLM_A6000")
    assert profile.draft_pass_ms == 6.1
    assert list(profile.target_ms_per_token.values()) == [13.5, 24.7, 52.6]
    assert profile.verify_ms == {}
    assert "2512.20573" in profile.provenance["source"]


@pytest.mark.parametrize("name", known_profiles())
def test_every_profile_here_loads_under_its_own_name(name):
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", [TARGET, f"Qwen/{TARGET}", f"some/folder/{TARGET}", f"/abs/{TARGET}/"])
def test_resolve_target(name):
    assert resolve_target(load_profile("vLLM_A6000"), name) == TARGET


@pytest.mark.parametrize("name", ["bundled", "Qwen2.5-7B", "", f"{TARGET}/other"])
def test_unknown_target_says_what_to_do(name):
    profile = load_profile("vLLM_A6000")
    with pytest.raises(UserError) as caught:
        resolve_target(profile, name)
    for part in (*profile.target_ms_per_token, "--latency_target", "--latency_profile none", "vLLM_A6000"):
        assert part in str(caught.value)


def test_the_default_profile_may_lack_a_target_where_nobody_named_it_and_there_are_measured_times():
    asked, own = PricingConfig.latency_profile, "my/own_model"
    optional = Pricing.load(asked, has_measured=True)
    assert optional.entries(own) == {} and optional.engines(own) == []
    line = optional.without_model(own)
    assert line is not None and "vLLM_A6000 has no target 'my/own_model'" in line and "--latency_profile" in line
    assert len(optional.entries(TARGET)) == 1 and optional.without_model(TARGET) is None
    explicit = ([*asked], None), (asked, "own"), (asked, None)
    for (names, as_if), has_measured in zip(explicit, (True, True, False), strict=True):
        with pytest.raises(UserError, match="has no target"):
            Pricing.load(names, as_if, has_measured=has_measured).entries(own)


def test_unknown_profile_lists_the_known():
    with pytest.raises(UserError, match="unknown latency profile 'vLLM_H100' .*vLLM_A6000"):
        load_profile("vLLM_H100")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the latency profile .*gone\.json"):
        load_profile(tmp_path / "gone.json")


@pytest.mark.parametrize("text", [b"{", b"", b"\xff", b"[" * 100_000], ids=["cut", "empty", "bytes", "deep"])
def test_malformed_json_is_named(text, tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(text)
    with pytest.raises(UserError, match=r"bad\.json is not valid JSON"):
        load_profile(path)


def changed(path, value):
    """PLAIN_JSON with one value replaced (or left out, when None)."""
    raw = copy.deepcopy(PLAIN_JSON)
    *parents, last = path
    place = raw
    for key in parents:
        place = place[key]
    place.pop(last, None)
    if value is not None:
        place[last] = value
    return raw


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "the file must be a JSON object"),
        (changed(["draft_pass_ms"], None), "lacks the field 'draft_pass_ms'"),
        (changed(["provenance"], None), "lacks the field 'provenance'"),
        (changed(["draft_ms"], 1.0), "unknown field 'draft_ms'"),
        (changed(["draft_pass_ms"], "6.1"), "draft_pass_ms must be a positive number"),
        (changed(["draft_pass_ms"], True), "draft_pass_ms must be a positive number"),
        (changed(["draft_pass_ms"], 0), "draft_pass_ms must be a positive number"),
        (changed(["draft_pass_ms"], 1e-10), r"positive number of milliseconds \(1e-09 to 1e\+09\), not 1e-10"),
        (changed(["draft_pass_ms"], float("nan")), "draft_pass_ms must be a positive number"),
        (changed(["draft_pass_ms"], 10**400), "draft_pass_ms must be a positive number"),
        (changed(["target_ms_per_token"], {}), "target_ms_per_token is empty"),
        (
            changed(["target_ms_per_token", "big"], -1),
            r"target_ms_per_token\['big'\] must be a positive number",
        ),
        (changed(["target_ms_per_token", "a/b"], 1.0), "target_ms_per_token has the unusable name 'a/b'"),
        (changed(["verify_ms", "small"], {"1": 1.0}), "no entry in target_ms_per_token"),
        (changed(["verify_ms", "big"], {}), r"verify_ms\['big'\] is empty"),
        (changed(["verify_ms", "big", "0"], 1.0), "the key '0'"),
        (changed(["verify_ms", "big", "08"], 1.0), "the key '08'"),
        (changed(["verify_ms", "big", "x"], 1.0), "the key 'x'"),
        (changed(["family_pass_ms"], {}), "family_pass_ms is empty"),
        (changed(["family_pass_ms"], {"dflash": "2"}), r"family_pass_ms\['dflash'\] must be a positive number"),
        (changed(["family_pass_ms"], {"dflash": {"small": 1.0}}), "'small', which has no entry in target_ms_per_token"),
        (
            changed(["family_pass_ms"], {"dflash": {"big": 0}}),
            r"family_pass_ms\['dflash'\]\['big'\] must be a positive",
        ),
        (changed(["provenance"], "a paper"), "provenance must be a JSON object"),
        (changed(["name"], "x] Speedup: 9x\n[y"), "unusable name"),
        (changed(["name"], "measured"), "unusable name"),
        (changed(["name"], "none"), "unusable name"),
    ],
)
def test_malformed_profile_names_the_file_and_the_field(raw, message, tmp_path):
    path = write_profile(tmp_path, raw)
    with pytest.raises(UserError, match=message) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_table_may_be_left_out(tmp_path):
    assert load_profile(write_profile(tmp_path, changed(["verify_ms"], None))).verify_ms == {}
