"""The HTML report without a browser: what it packs, that it is inert, and its command line. In a browser: browser/."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import random
import re
import zlib
from html.parser import HTMLParser

import pytest
from made_up import made_up_trace
from samples import make_plain
from written import HOSTILE, reader, tokens_of, written

from specdec.commands import report as html_report
from specdec.latency.pricing import Pricing
from specdec.latency.profile import load_profile
from specdec.ranking.entries import entry_of, merge
from specdec.records.record import identity_path, save_record
from specdec.runs.run_file import RunFile
from specdec.traces.trace import save_trace, trace_path
from specdec.views.palette import kind_of, legend
from specdec.views.question_data import packed, question_data
from specdec.views.report_data import report_data
from specdec.views.report_page import SOURCES, inert_json, report_page

PRICING = Pricing((load_profile("vLLM_A6000"),))
DRAFTERS = ("plain", "ar_None_sf_8", "dllm_0.05_sf_8", "dllm_0.05_df_0.45_60_10_strict")
TEXTS = ("First, we add.\nThen 4 = 4.", HOSTILE, "Short. " * 12)


def some_records(texts=TEXTS, drafters=DRAFTERS):
    numbered = enumerate(map(tokens_of, texts))
    return [written(text, drafter, question_id=number) for number, text in numbered for drafter in drafters]


def entries(found):
    return merge(entry_of(one, PRICING) for one in found)


def save(folder, found):
    for one in found:
        save_record(one, identity_path(folder, one.identity))


def test_own_questions_are_named_by_what_was_asked() -> None:
    """Turns by their own words, messages by the last; rows are counted, and turns beside them."""
    turns = {"turns": ["One?", "And two?"], "category": "x"}
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    rows = {0: turns, 1_000_000: turns, 1: {"messages": [*said, {"role": "user", "content": "1+1?"}]}}
    found = [
        written(tokens_of("Yes. "), drafter, question_id=number, raw_data=row)
        for number, row in rows.items()
        for drafter in DRAFTERS[:2]
    ]
    data = report_data(found, entries(found), [])
    assert [(one["name"], one["title"]) for one in data["questions"]] == [
        ("0", "One?"),
        ("0 turn 2", "And two?"),
        ("1", "1+1?"),
    ]
    assert dict(data["facts"])["Questions"].endswith(" 0-1 (2, 3 turns)")
    assert "2 conversations of 3 turns" in data["scope"]
    assert {engine["over"] for engine in data["ranking"]["engines"]} == {"2 conversations"}
    (shown,) = [value for name, value in question_data(found[4:], reader())["row"] if name == "messages"]
    assert shown == "user: Hi\nassistant: Yes?\nuser: 1+1?"


class _Page(HTMLParser):
    """The texts of a page's script and style elements by id (or kind), its tags, and its policy."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts, self.tags, self.policy, self._inside = {}, [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"]
        self._inside = found.get("id", tag) if tag in ("script", "style") else None

    def handle_data(self, data):
        if self._inside:
            self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag):
        self._inside = None


def page_of(found):
    return _Page(html_report.report_html(found, entries(found), reader()))


def unpacked(text):
    return json.loads(zlib.decompress(base64.b64decode(text)))


# --- what is packed ---


@pytest.mark.parametrize("text", TEXTS)
def test_a_packed_question_gives_back_every_round(text):
    found = [written(tokens_of(text), drafter) for drafter in DRAFTERS]
    question = unpacked(packed(question_data(found, reader())))
    assert [run["name"] for run in question["runs"]] == list(DRAFTERS)
    assert [run["num_rounds"] for run in question["runs"]] == [record.num_rounds for record in found]
    turns = [turn for record in found for turn in record.rounds]
    rounds = question["rounds"]
    assert rounds["accepted"] == [turn.accepted_len for turn in turns]
    assert rounds["rejected"] == [turn.draft_len - turn.accepted_len for turn in turns]
    assert rounds["own"] == [int(turn.next_token is not None) for turn in turns]
    assert rounds["passes"] == [turn.num_forward_passes for turn in turns]
    assert [question["stops"][index] for index in rounds["stop"]] == [turn.stop_reason for turn in turns]
    assert rounds["draft_ms"] == [round(10 * turn.draft_ms) for turn in turns]
    assert rounds["verify_ms"] == [round(10 * turn.verify_ms) for turn in turns]
    sure = [min(9, int(10 * one)) for turn in turns for one in turn.confidences]
    assert [int(one) for one in question["sure"]] == sure
    assert len(question["rejected"]) == sum(rounds["rejected"])
    assert len(question["answer"]) == found[0].num_output_tokens
    shown = "".join(question["texts"][index] for index in question["answer"] if index not in question["bytes"])
    assert shown == "".join(piece.text for piece in reader().read(tokens_of(text))[0] if piece.kind == "text")


def test_a_drafter_that_wrote_another_text_keeps_its_own():
    found = [written(tokens_of("one"), "plain"), written(tokens_of("two"), "ar_None_sf_8")]
    question = question_data(found, reader())
    assert "answer" not in question["runs"][0]
    own = question["runs"][1]["answer"]
    assert "".join(question["texts"][index] for index in own) == "two"


def test_a_question_of_random_drafts_stays_small():
    """30 questions of 40 drafters fit 10 MB, even if no two drafters agree in what they get wrong."""
    rng = random.Random(0)
    text = rng.choices(range(300, 4000), k=1024)
    found = [written(text, f"dllm_0.05_sf_{size}", luck=0.8) for size in range(1, 41)]
    assert len(packed(question_data(found, reader()))) < 9e6 / 30


# --- what is said of all questions ---


def test_the_figures_show_the_records_numbers():
    found = some_records()
    data = report_data(found, entries(found), [])
    name = "dllm_0.05_sf_8"
    own = [record for record in found if record.drafter_name == name]
    bins = data["position"]["by_drafter"][name]
    assert sum(accepted for accepted, _ in bins) == sum(record.num_accepted for record in own)
    assert sum(drafted for _, drafted in bins) == sum(record.num_drafted for record in own)
    first = [turn for record in own for turn in record.rounds if turn.prefix_len - 3 < data["position"]["bin"]]
    assert bins[0] == [sum(turn.accepted_len for turn in first), sum(turn.draft_len for turn in first)]
    column = [drafter["name"] for drafter in data["drafters"]].index(name)
    for question, record in zip(data["questions"], own, strict=True):
        speedups, *counts = question["results"][column]
        assert counts == [record.num_output_tokens, record.num_rounds, record.num_accepted, record.num_drafted,
                          record.num_forward_passes]  # fmt: skip
        expected = PRICING.prices(record)
        assert speedups[0] == pytest.approx(next(iter(expected.values())).speedup, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("plain", "plain"),
        ("ar_None_sf_8", "ar_sf"),
        ("ar_None_df_0.4_60_10", "ar_df"),
        ("dllm_0.9_sf_8", "dllm_sf"),
        ("dllm_0.05_df_0.45_60_10", "failfast"),
        ("dllm_0.05_ca_60_Q@P", "cost_aware"),
        ("something_new", "other"),
    ],
)
def test_families(name, family):
    assert kind_of(name).kind == family


@pytest.mark.parametrize("kind", legend(), ids=lambda kind: kind.kind)
def test_the_page_knows_how_every_kind_looks(kind):
    shapes = (SOURCES / "charts.js").read_text().partition("const SHAPES = {")[2].partition("};")[0]
    assert kind.marker == "o" or re.search(rf"\n  '?{re.escape(kind.marker)}'?: \[", shapes), kind.marker


# --- the page ---


def test_the_page_is_inert_and_loads_nothing():
    found = some_records()
    found[0].raw_data["question"] = HOSTILE
    page = page_of(found)
    assert [found.get("id") for tag, found in page.tags if tag == "script"] == [
        "data", "question-0", "question-1", "question-2", None,
    ]  # fmt: skip
    assert not [(tag, found) for tag, found in page.tags if "src" in found or tag in ("iframe", "object", "img")]
    addresses = [found.get("href", "#") for _, found in page.tags]
    assert all(address.startswith(("#", "data:,")) for address in addresses)
    assert json.loads(page.texts["data"])["questions"][0]["title"].startswith("<script>alert('gone')")


def test_the_policy_admits_the_pages_own_style_and_script_alone():
    page = page_of(some_records())
    for kind in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.policy
    assert page.policy.startswith("default-src 'none'")
    assert "unsafe" not in page.policy and "http" not in page.policy


def test_data_cannot_end_its_script_or_fill_a_slot():
    text = inert_json(["</script>", "<!--", "\u2028", "é", "&amp;"])
    assert not set("<>&") & set(text) and text.isascii()
    assert json.loads(text)[0] == "</script>"
    assert "{{script}}" in report_page("<t>", ["{{script}}"], []).partition('id="data">')[2].partition("</script>")[0]
    assert "<title>&lt;t&gt;</title>" in report_page("<t>", [], [])


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        inert_json([float("nan")])


# --- the command ---


def test_the_command_writes_one_file(tmp_path, capsys):
    save(tmp_path / "results", some_records())
    with RunFile(tmp_path / "results", {
        "target": "bundled", "dataset": "gsm8k", "max_new_tokens": 64, "question_ids": [0], "drafters": [],
        "settings": {"target_model_name": "bundled", "seed": 3},
    }):  # fmt: skip
        pass
    assert html_report.main([str(tmp_path / "results"), "--out", str(tmp_path / "r.html")]) == 0
    assert str(tmp_path / "r.html") in capsys.readouterr().out
    data = json.loads(_Page((tmp_path / "r.html").read_text()).texts["data"])
    assert dict(data["facts"])["Runs"] == "1 done"
    assert dict(data["settings"])["settings.seed"] == "3"
    assert [one["name"] for one in data["engines"]] == ["vLLM_A6000 as if Qwen2.5-32B-Instruct", "measured"]
    below = tmp_path / "results" / "pickles" / "bundled"
    assert html_report.main([str(below), "--out", str(tmp_path / "s.html")]) == 0
    assert dict(json.loads(_Page((tmp_path / "s.html").read_text()).texts["data"])["facts"])["Runs"] == "1 done"


def test_shares_of_the_ceiling_where_there_are_traces(tmp_path):
    from specdec.commands.replay import run

    for number in range(2):
        trace = made_up_trace(number, num_tokens=30, chain_len=20, vocab_size=60, thresholds=(0.5,))
        save_trace(trace, trace_path(tmp_path, trace.identity))
    drafters = ["--drafters", "plain", "dllm_sf", "--drafter_thresholds", "0.5", "--spec_len", "3", "5"]
    run([str(tmp_path), *drafters, "--output_dir", str(tmp_path)])
    assert html_report.main([str(tmp_path), "--out", str(tmp_path / "r.html")]) == 0
    data = json.loads(_Page((tmp_path / "r.html").read_text()).texts["data"])
    shares = [row["ceiling_share"] for row in data["ranking"]["engines"][0]["rows"]]
    assert len(shares) == 2 and all(0 < share <= 1 for share in shares)


def _save_nan(folder):
    found = some_records(TEXTS[:1])
    save(folder, found)
    path = next(folder.rglob("ar_None_sf_8/*.pickle"))
    from specdec.records import pickles

    data = found[1].to_builtins()
    data["stats_each_round"][0]["confidences"][0] = float("nan")
    path.write_bytes(pickles.dumps(data))


def _two_targets():
    other = [written(tokens_of("x"), "plain"), written(tokens_of("x"), "ar_None_sf_8")]
    identities = [dataclasses.replace(one.identity, target="another", question_id=1) for one in other]
    moved = [dataclasses.replace(one, identity=identity) for one, identity in zip(other, identities, strict=True)]
    return [*some_records(TEXTS[:1]), *moved]


@pytest.mark.parametrize(
    ("fill", "expected"),
    [
        (lambda folder: None, "holds no records"),
        (lambda folder: save(folder, some_records(TEXTS[:1], ("ar_None_sf_8",))), "one record"),
        (lambda folder: save(folder, _two_targets()), "several targets (another, bundled)"),
        (lambda folder: save(folder, [make_plain(0), make_plain(1)]), "no drafter has a time"),
        (lambda folder: save(folder, some_records(TEXTS[:2])[:-1]), "different questions"),
        (_save_nan, "confidences is wrong"),
    ],
)
def test_bad_results_are_one_line_and_status_2(tmp_path, capsys, fill, expected):
    (tmp_path / "results").mkdir()
    fill(tmp_path / "results")
    assert html_report.main([str(tmp_path / "results"), "--out", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"python -m specdec\.html_report: error: [^\n]*\n", said) and expected in said
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--out", "{tmp}/no/such/folder/r.html"], "cannot write"),
        (["--out", "{tmp}"], "cannot write"),
        (["--tokenizer", "{tmp}"], "tokenizer.json"),
        (["--latency_profile", "unheard_of"], "unknown latency profile"),
        (["--trace_dir", "{tmp}"], "cannot read"),
    ],
)
def test_bad_options_are_one_line_and_status_2(tmp_path, capsys, more, expected):
    save(tmp_path / "results", some_records(TEXTS[:2]))
    options = [one.format(tmp=tmp_path) for one in more]
    assert html_report.main([str(tmp_path / "results"), "--out", str(tmp_path / "r.html"), *options]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and expected in said


def test_a_target_without_a_tokenizer_here_is_named(tmp_path, capsys):
    found = [
        dataclasses.replace(one, identity=dataclasses.replace(one.identity, target="Far-9B"))
        for one in some_records(TEXTS[:2])
    ]
    save(tmp_path / "results", found)
    arguments = [str(tmp_path / "results"), "--out", str(tmp_path / "r.html")]
    arguments += ["--latency_target", "Qwen2.5-7B-Instruct"]
    assert html_report.main(arguments) == 2
    assert "the tokenizer of 'Far-9B' is not on this machine" in capsys.readouterr().err
    assert html_report.main([*arguments, "--tokenizer", "assets/models/target"]) == 0
