"""Recommendations: never against a doubt, what is slower than plain decoding or another text; in a server's words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from examples import many
from hypothesis import given
from hypothesis import strategies as st
from samples import make_record, with_settings
from test_comparisons import NAMES, entry
from test_trust import entries as timed
from test_verdicts import GSM8K, noisy, ranked, two_sets

from specdec import cli
from specdec.commands.recommend import as_json, as_text, by_engine
from specdec.commands.recommend import run as run_recommend
from specdec.drafters.ar import ArStatic
from specdec.drafters.families import kinds, parse_name
from specdec.drafters.served import SERVERS, words_of
from specdec.latency.pricing import Price
from specdec.latency.profile import MEASURED
from specdec.ranking.entries import UNKNOWN, Entry
from specdec.ranking.table import table_of
from specdec.records.divergence import BUG
from specdec.records.record import identity_path, save_record
from specdec.runs.footprint import Footprint, footprints
from specdec.views.recommendation import LOSSY, recommend
from specdec.views.recommendation_text import LINES, WIDTH
from specdec.views.verdict import DOUBTED, FASTEST, MAYBE_PLAIN, NOT_PLAIN, TOO_FEW, UNDECIDED

FAILFAST, STATIC, AR_8, AR_4 = NAMES
MODELS = {
    FAILFAST: Footprint("Fast_dLLM_v2_1.5B", "bfloat16", 1_540_000_000, 14_336),
    AR_8: Footprint("Qwen/Qwen2.5-1.5B-Instruct", "bfloat16", 1_540_000_000, 14_336),
}
RUN = {
    "generation": {"dtype": "float32"},
    "models": {"AR drafter": {"name": "small", "sha256": "abc", "num_parameters": 10, "kv_values_per_token": 3}},
}


def of_order(order: Sequence[str], means: Sequence[float], num_questions: int = 20, noise: float = 0.05) -> list[Entry]:
    """Entries of these drafters, with these mean speedups."""
    rows = enumerate(noisy(means, num_questions, noise))
    return [entry(question, name, x) for question, row in rows for name, x in zip(order, row, strict=True)]


AR_WINS = of_order((AR_8, AR_4, FAILFAST), (3.0, 2.0, 1.5))
FAILFAST_WINS = of_order((FAILFAST, STATIC, AR_8, AR_4), (4.0, 3.0, 2.0, 1.5))


def text_of(stats: list[Entry]) -> str:
    """The text, which fits a page, on one line."""
    text = as_text(stats, MODELS)
    assert len(text.splitlines()) <= LINES and max(map(len, text.splitlines())) <= WIDTH, text
    return " ".join(text.split())


def test_what_a_server_has_is_said_in_its_own_words() -> None:
    one = by_engine(AR_WINS, MODELS)[0]
    assert (one.kind, one.row.drafter_name) == (FASTEST, AR_8) and not one.alike
    vllm, sglang = (shlex.split(served.words.text) for served in one.served)
    expected = {"method": "draft_model", "model": MODELS[AR_8].name, "num_speculative_tokens": 8}
    assert vllm[0] == "--speculative-config" and json.loads(vllm[1]) == expected
    assert sglang[:2] == ["--speculative-algorithm", "STANDALONE"]
    given_ = dict(zip(sglang[::2], sglang[1::2], strict=True))
    assert given_["--speculative-draft-model-path"] == MODELS[AR_8].name
    assert (given_["--speculative-num-steps"], given_["--speculative-num-draft-tokens"]) == ("8", "9")
    text = text_of(AR_WINS)
    assert "Use AR, static 8: 3.0" in text and "vLLM and SGLang have it" in text and "batch 1" in text
    assert "1.54 B parameters, 2.9 GiB in bfloat16; KV cache 28.0 KiB a token" in text


def test_lines_of_settings_are_one_command() -> None:
    def read(text: str) -> list:
        words = shlex.split(text.replace("\\\n", ""))
        return [json.loads(word) if word.startswith("{") else word for word in words]

    for name, model in ((AR_8, "a folder/it's a model"), ("lookup_3_sf_10", None)):
        for words in filter(None, (words_of(parse_name(name), server, model) for server in SERVERS)):
            lines = words.lines(30)
            assert len(lines) > 1 and read("\n".join(lines)) == read(words.text)


def test_numbers_are_numbers_and_a_models_name_is_none() -> None:
    class Made(ArStatic):
        serving = {"vLLM": {"method": "m", "model": "{model}", "depth": "{draft_len}", "floor": "0.1"}}

    _, text = shlex.split(words_of(Made(8), "vLLM", "2048").text)
    assert json.loads(text) == {"method": "m", "model": "2048", "depth": 8, "floor": 0.1}
    assert words_of(Made(8), "SGLang") is None


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind != "plain"])
def test_every_family_says_how_each_server_drafts_so_or_why_it_does_not(kind: str) -> None:
    spec = kinds()[kind]
    assert set(spec.serving) <= set(SERVERS)
    assert set(spec.serving) == set(SERVERS) or spec.not_served
    for one in spec.sweep({}):
        assert {server for server in SERVERS if words_of(one, server)} == set(spec.serving)


def test_what_no_server_has_is_said_to_be_not_there_with_the_best_that_is() -> None:
    one = by_engine(FAILFAST_WINS, MODELS)[0]
    assert one.row.drafter_name == FAILFAST
    for served in one.served:
        assert served.why_not and served.row.drafter_name == AR_8
        assert served.difference.estimate.low < served.difference.estimate.value < served.difference.estimate.high < 0
    text = text_of(FAILFAST_WINS)
    low, high = -served.difference.estimate.high, -served.difference.estimate.low
    less = f"slower by {-served.difference.estimate.value:.2f} times plain decoding ({low:.2f} to {high:.2f})"
    assert f"AR, static 8, {less}" in " ".join(text.split())
    assert "vLLM and SGLang: not there: it has neither such a drafter" in text


def test_where_a_server_has_nothing_that_pays_it_says_so() -> None:
    text = text_of(of_order((FAILFAST, AR_8), (4.0, 0.8)))
    assert "nor is any other drafter that pays" in text and "--speculative" not in text


@pytest.mark.parametrize(
    ("stats", "kind", "said"),
    [
        (of_order((AR_8, AR_4), (0.9, 0.7)), NOT_PLAIN, "no drafter beats plain decoding"),
        (of_order((AR_8, AR_4), (1.05, 0.5), 8, 0.6), MAYBE_PLAIN, "can be told from plain decoding"),
        (of_order((AR_8, AR_4), (3.0, 2.0), 4), TOO_FEW, "too few questions (4; at least 5 are needed)"),
        (of_order((AR_8, AR_4), (3.0, 2.99), 8, 1.0), UNDECIDED, "Undecided, so nothing is recommended"),
    ],
)
def test_nothing_is_recommended_without_evidence(stats: list[Entry], kind: str, said: str) -> None:
    one = by_engine(stats, MODELS)[0]
    assert (one.kind, one.row) == (kind, None)
    text = text_of(stats)
    assert said in text and "Use " not in text
    assert (one.num_more is not None) == ("more questions would decide" in text)
    assert one.num_more is None if kind in (NOT_PLAIN, TOO_FEW) else one.num_more > 0
    assert bool(one.served) == (kind == UNDECIDED)


def test_times_of_a_busy_machine_recommend_nothing() -> None:
    (one,) = (one for one in by_engine(timed(2.1, load=11.0), {}) if one.table.engine == MEASURED)
    assert (one.kind, one.row, one.served) == (DOUBTED, None, [])
    assert "Nothing is recommended: measured times are not to be trusted" in text_of(timed(2.1))
    assert by_engine(timed(1.0), {})[0].row is not None


def test_another_text_than_plain_decodings_is_not_recommended() -> None:
    damaged = [replace(one, losslessness=BUG) if one.drafter_name == AR_8 else one for one in AR_WINS]
    one = by_engine(damaged, MODELS)[0]
    assert (one.kind, one.row) == (LOSSY, None) and "writes another text" in text_of(damaged)


def test_what_is_level_is_named() -> None:
    speedups = [{FAILFAST: 3.0 + 0.01 * (n % 3), AR_8: 2.994 + 0.01 * (n % 4)} for n in range(40)]
    stats = [entry(n, name, x) for n, row in enumerate(speedups) for name, x in row.items()]
    one = by_engine(stats, MODELS)[0]
    assert one.row.drafter_name == FAILFAST and [row.drafter_name for row in one.alike] == [AR_8]
    assert "Level with it (closer than 5%): AR, static 8." in text_of(stats) and "; level)" in text_of(stats)


def test_modelled_and_measured_are_kept_apart() -> None:
    text = text_of([replace(one, prices={"P (roofline) as if Q": one.prices["E"]}) for one in AR_WINS])
    assert "Modelled, as if Q under P (bound): Use AR" in text and "Measured" not in text


def test_data_sets_with_other_winners_are_told_apart() -> None:
    stats = two_sets()
    text = text_of(stats)
    assert "The first changes with the data set" in text and "gsm8k: FailFast" in text and "math: dLLM" in text
    document = json.loads(as_json(stats, MODELS))
    assert [(one["dataset"], one["recommended"]) for one in document["data_sets"]] == [
        ("gsm8k", NAMES[0]), ("math", NAMES[1]),
    ]  # fmt: skip
    same = ranked(noisy((3.0, 2.0), 8, 0.1), GSM8K)
    assert "changes with the data set" not in text_of(same) and not json.loads(as_json(same, {}))["data_sets"]


def test_a_line_says_where_the_first_changes_with_the_profile() -> None:
    """Of profiles that were not asked for, too; bounds have their mark."""
    others = {AR_8: Price(10, 10, 90), AR_4: Price(10, 10, 30), FAILFAST: Price(10, 10, 60)}
    stats = [
        replace(one, other_prices={"H (roofline) as if Q": others[one.drafter_name]})
        for one in of_order((FAILFAST, AR_8, AR_4), (3.0, 2.0, 1.5))
    ]
    text = text_of(stats)
    assert "Use FailFast" in text and "The first by number changes with the profile: under E:" in text
    assert "under H (bound): ar_None_sf_8 4.50x" in text
    assert json.loads(as_json(stats, {}))["profiles"].startswith("The first by number changes")


def test_memory_is_what_the_runs_say_and_else_unknown() -> None:
    record = make_record()
    record = replace(record, identity=with_settings(record.identity, {"drafter_sha256": "abc", "dtype": "float32"}))
    known = footprints([record], [RUN])[record.drafter_name]
    assert (known.weight_bytes, known.kv_bytes_per_token) == (40, 12)
    for run in (
        {},
        {"models": 3},
        {"generation": {"dtype": []}},
        RUN | {"generation": {"dtype": "bfloat16"}},
        RUN | {"models": {"AR drafter": 3}},
    ):
        assert footprints([record], [run]) == {}
    older = {"generation": {"dtype": "float32"}, "models": {"AR drafter": {"name": "small", "sha256": "abc"}}}
    assert footprints([record], [older])[record.drafter_name].weight_bytes is None
    other = replace(record, identity=with_settings(record.identity, {"drafter_sha256": "def"}))
    assert footprints([record, other], [RUN]) == {}  # two models under one name
    assert "Drafter's memory: unknown" in as_text(AR_WINS, {})
    assert "Drafter's memory: none" in as_text(of_order(("lookup_3_sf_10",), (2.0,)), {})
    hybrid = "lookup_3_sf_10_else_ar_None_sf_8"  # its last part has one
    stats = of_order((hybrid, "lookup_3_sf_10"), (3.0, 2.0))
    assert "Drafter's memory: unknown" in as_text(stats, {})
    assert "Drafter's memory, as run: 0.0 M parameters, 40 bytes" in as_text(stats, {hybrid: known})


def test_a_model_with_a_strange_name_cannot_draw_on_a_terminal() -> None:
    text = as_text(AR_WINS, {AR_8: Footprint("a\x1b[31m\nb", "float32")})
    assert "\x1b" not in text and "Drafter's memory: unknown" in text


def priced(stats: Sequence[Entry], price_per_hour: float = 3.6) -> str:
    text = as_text(stats, MODELS, (), price_per_hour)
    assert len(text.splitlines()) <= LINES and max(map(len, text.splitlines())) <= WIDTH, text
    return " ".join(text.split())


def test_a_million_tokens_cost_what_their_time_costs() -> None:
    (one,) = by_engine(AR_WINS, MODELS)
    assert one.first is not None and one.first.ms_per_token
    cost = one.cost(3.6)
    assert cost is not None and cost.first == pytest.approx(one.first.ms_per_token) and cost.plain is None
    assert not cost.is_measured and not cost.is_bound and one.cost(None) is None
    assert replace(one, kind=DOUBTED).cost(3.6) is None
    said = f"A million output tokens at 3.6 an hour: {one.first.ms_per_token:.2f}; modelled, one request at a time."
    assert said in priced(AR_WINS) and "A million" not in text_of(AR_WINS)
    document = json.loads(as_json(AR_WINS, MODELS, (), 3.6))
    assert document["engines"][0]["cost_per_million_tokens"]["first"] == pytest.approx(cost.first)
    assert json.loads(as_json(AR_WINS, MODELS))["engines"][0]["cost_per_million_tokens"] is None


def test_a_cost_is_no_better_than_its_time() -> None:
    bound = [replace(one, prices={"P (roofline) as if Q": one.prices["E"]}) for one in AR_WINS]
    assert "a modelled bound, real time costs more" in priced(bound)
    measured = [replace(one, prices={MEASURED: one.prices["E"]}) for one in AR_WINS]
    assert "; measured, one request" in priced(measured)
    nothing = of_order((AR_8, AR_4), (0.8, 0.7))
    assert json.loads(as_json(nothing, MODELS, (), 2.0))["engines"][0]["cost_per_million_tokens"]["first"] is None


def test_json_says_all_of_it() -> None:
    document = json.loads(as_json(FAILFAST_WINS, MODELS, ["a note"]))
    (one,) = document["engines"]
    assert (document["concurrency"], document["notes"], one["recommended"]) == (1, ["a note"], FAILFAST)
    assert one["memory"]["weight_bytes"] == 3_080_000_000 and one["num_questions"] == 20
    vllm = one["servers"]["vLLM"]
    assert not vllm["has_it"] and vllm["drafter_name"] == AR_8 and vllm["to_best"]["high"] < 0
    assert json.loads(as_json(AR_WINS, {}))["engines"][0]["memory"]["num_parameters"] is None


@given(
    st.lists(st.floats(0.3, 5.0), min_size=4, max_size=4), st.integers(1, 12), st.floats(0.0, 1.0), st.integers(1, 4)
)
@many(25)
def test_a_recommendation_fits_a_page_and_never_exceeds_its_evidence(
    means: list[float], num_questions: int, noise: float, num_engines: int
) -> None:
    engines = [f"a_long_profile_of_some_machine_{n} as if Some-Long-Model-32B-Instruct" for n in range(num_engines)]
    stats = [
        replace(one, prices=dict.fromkeys(engines, one.prices["E"]), source=UNKNOWN)
        for one in ranked(noisy(means, num_questions, noise))
    ]
    text_of(stats)
    for one in by_engine(stats, MODELS):
        if one.row is not None:
            speedup = one.row.values["speedup_mean"]
            assert speedup.low is not None and speedup.low > 1 and one.row is one.table.first


def test_the_command_reads_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for question in range(2):
        record = make_record(question)
        save_record(record, identity_path(tmp_path, record.identity), "")
    assert cli.main(["recommend", str(tmp_path)]) == 0
    assert "too few questions (2; at least 5 are needed)" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["recommend", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "bundled"
    other = replace(record, identity=replace(record.identity, target="another"))
    save_record(other, identity_path(tmp_path, other.identity), "")
    assert cli.main(["recommend", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("failfast recommend: error: ")


def test_a_table_without_prices_recommends_nothing() -> None:
    bare = [replace(one, prices={}) for one in AR_WINS]
    assert recommend(table_of(bare, "E"), {}).row is None


def test_many_requests_at_a_time_are_simulated_where_asked(tmp_path):
    for question in range(6):
        for name in ("ar_None_sf_3", "dllm_0.05_sf_3"):
            record = make_record(question, name)
            save_record(record, identity_path(tmp_path, record.identity))
    words = [str(tmp_path), "--latency_profile", "A100_bound", "--latency_target", "Qwen3-8B", "--concurrency", "32"]
    said = " ".join(run_recommend(words).split())
    assert "32 requests at a time, simulated by A100_bound (roofline) as if Qwen3-8B: " in said
    assert said.index("32 requests at a time") < said.index("One request at a time (batch 1):") < said.index("Modelled")
    document = json.loads(run_recommend([*words, "--json"]))
    best = document["load"]["loads"][0]["best"]
    at_once = document["load"]["servers"]
    assert set(at_once) == (set() if best == "plain" else {"vLLM", "SGLang"})
    for server in at_once.values():
        assert server["settings"] is None or " ".join(server["settings"].split()) in said.replace("\\ ", "")
    assert [one["value"] for one in document["load"]["loads"]] == [32] and document["concurrency"] == 32
    assert {one["concurrency"] for one in document["engines"]} == {1}
    alone = json.loads(run_recommend([*words[:-2], "--json"]))
    assert alone["load"] is None and alone["concurrency"] == 1
