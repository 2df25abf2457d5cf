"""Figures: every one on its own page and on a narrow column without a text that meets another or the edge; what is
drawn as numbers; the flags of the page. A figure that is added is looked at as well.
"""

from __future__ import annotations

import csv
import importlib
import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import made_up_trace, with_slots
from matplotlib.figure import Figure
from matplotlib.text import Text
from samples import AR, FAILFAST, make_plain, make_record, make_round

from plotting import cli, fit, gallery, style
from specdec.commands import rank
from specdec.latency.pricing import Pricing
from specdec.latency.profile import LatencyProfile
from specdec.ranking.entries import entry_of
from specdec.ranking.oracle import TraceJudges
from specdec.ranking.statistics import Value
from specdec.records.record import Record, identity_path, save_record
from specdec.records.rounds import Round
from specdec.traces.calibration import tree_costs
from specdec.traces.replay import replay
from specdec.traces.trace import save_trace, trace_path
from specdec.views import palette
from specdec.views.table_data import ranking_json

pytestmark = pytest.mark.slow
FIGURES = sorted({*(picture.name for picture in gallery.PICTURES if picture.suffix == ".png"), *gallery.ELSEWHERE})
NARROW = 3.3  # inches: a column of a paper
SETTINGS = (
    *("ar_None_sf_4", "ar_None_sf_8", "ar_None_sf_12", "dllm_0.05_sf_4", "dllm_0.05_sf_8", "dllm_0.05_sf_12"),
    *("dllm_0.45_sf_8", "dllm_0.9_sf_8", "dllm_0.05_df_0.2_60_10", FAILFAST, "dllm_0.05_df_0.9_60_10"),
    *("dllm_0.05_df_0.45_20_10", "dllm_0.05_df_0.45_40_10"),
)
FEW = ("--drafters", "ar_None_sf_8", "dllm_0.05_sf_8", FAILFAST)
# What a figure needs beside the records: of the traces, of one record, of few drafters.
FLAGS: dict[str, tuple[str, ...]] = {
    "acc_rate_over_time": ("--drafters", FAILFAST, "ar_None_sf_8", "--question_ids", "0"),
    "visualize_trajectory": ("--drafters", FAILFAST, "--question_ids", "0"),
    "accepted_trajectory": ("--drafters", FAILFAST, "--question_ids", "0"),
    "difficulty_intuition": ("--drafters", FAILFAST),
    "acc_pro_len_cdf": FEW,
    "consecutive_easy_cdf": FEW,
    "threshold_insights_problem": ("--question_ids", "0", "1", "2"),
    "latency_breakdown_by_model": (*FEW, "--latency_target", "Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct"),
    "modelled_vs_measured": FEW,
}


OF_RECORDS = ("threshold_insights_problem", "latency_breakdown_by_model")


def rounds_of(name: str, question: int) -> list[Round]:
    """5 rounds or more; longer drafts for longer settings, some of each rejected."""
    spec = palette.parse_name(name)
    length = int(getattr(spec, "draft_len", None) or 4 + 10 * getattr(spec, "tau", 0))
    made, place = [], 3
    for turn in range(5 + question % 3):
        accepted = min(length, 1 + (question + 2 * turn + length) % 7)
        passes = length if name.startswith("ar_") else 1 + length // 5 + round(4 * getattr(spec, "unmask_threshold", 0))
        more = {"num_denoise_passes": passes, "draft_ms": 2.0 * passes, "verify_ms": 9.0 + 0.1 * length}
        made.append(make_round(place, tuple(range(5, 5 + length)), accepted, next_token=200, **more))
        place += accepted + 1
    return made


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six questions under every setting, plain decoding, traces, a training's log."""
    folder = tmp_path_factory.mktemp("figures")
    made = {name: folder / name for name in ("results", "traces", "log")}
    for question in range(6):
        for name in SETTINGS:
            keep(made["results"], make_record(question, name, rounds_of(name, question)))
        keep(made["results"], make_plain(question, 25, 10.0 + question))
        trace = made_up_trace(question, num_tokens=40, thresholds=(0.05, 0.9))
        save_trace(trace, trace_path(made["traces"], trace.identity))
    bars = [f"Training Epoch 0:  6%|# | {step}/99 [01:02<00:40, 3.1it/s, acc=0.{10 + step}]" for step in range(1, 80)]
    (folder / "a-drafter.log").write_text("\n".join(bars))
    ranking = json.loads(rank.run([str(made["results"]), "--json"]))
    for at, row in enumerate(row for engine in ranking["engines"] for row in engine["rows"]):
        row |= {"ceiling_share": 0.7 - 0.02 * at % 0.4, "over_share": 0.1, "under_share": 0.05, "passes_share": 0.15}
        row |= {"ceiling_share_low": row["ceiling_share"] - 0.05, "ceiling_share_high": row["ceiling_share"] + 0.04}
    (folder / "ranking.json").write_text(json.dumps(ranking))
    (folder / "trees.json").write_text(ranking_of_trees())
    looks = [
        {"tokens": 9e5 * n, "questions": 4, "acceptance_length": 1 + 0.8 * n, "accuracy": 0.2 * n} for n in range(4)
    ]
    heads = {name: {"curve": looks[number:]} for number, name in enumerate(("EAGLE-3", "DFlash, longer"))}
    (folder / "curves.json").write_text(json.dumps({"heads": heads}))
    (folder / "heads.json").write_text(json.dumps(head_to_head()))
    own = {name: folder / f"{name}.json" for name in ("trees", "ranking", "curves", "heads")}
    return made | {"log": folder / "a-drafter.log", **own}


def ranking_of_trees() -> str:
    """Of three questions, with ceilings: budgets, rules and a chain beside them."""
    table = {"bundled": {1: 10.0, 16: 11.0, 64: 16.0, 256: 40.0}}
    profile = LatencyProfile("made-up", 4.0, {"bundled": 10.0}, table, {}, family_pass_ms={"dflash": 2.0})
    pricing, entries = Pricing((profile,), "bundled"), []
    names = [f"dflash_tree_{nodes}" for nodes in (4, 8, 16, 32, 64, 128, 256)]
    names += [f"dflash_tree_df_0.05_{nodes}" for nodes in (16, 64, 256)]
    names += [f"dflash_tree_pairs_0.05_{nodes}" for nodes in (16, 64, 256)]
    names += [f"dflash_tree_ca_{nodes}_bundled@made-up" for nodes in (16, 64, 256)]
    for seed in range(3):
        trace = made_up_trace(seed, num_tokens=40, vocab_size=8)
        trace = with_slots(trace, "dflash_slots", num_slots=6, top_k=8)
        judges = TraceJudges(trace, pricing)
        for spec in map(palette.parse_name, ["plain", "lookup_3_sf_4", *names]):
            record = replay(trace, spec, {"slot_top_k": 8}, costs=tree_costs(spec, [profile]))
            entries.append(entry_of(record, pricing, judges))
    return ranking_json(entries, "")


def head_to_head() -> dict[str, Any]:
    """Six drafters as if for two targets: three of a pass for each token, three of one pass for all."""
    names, targets = ("ar", "dflash", "dllm", "dspark", "eagle3", "jetspec"), {}
    for target, pass_cost in (("Qwen2.5-32B-Instruct", 0.12), ("Qwen2.5-7B-Instruct", 0.45)):
        lengths, rows = {}, []
        for at, name in enumerate(names):
            lengths[name] = []
            for draft_len in range(1, 17):
                cost = 1 + pass_cost * (draft_len if at % 2 == 0 else 1)
                length = 1 + (4 + 0.4 * at) * (1 - 0.8**draft_len)
                one = {"draft_len": draft_len, "round_cost": cost, "acceptance_len": length}
                lengths[name].append(one | {"speedup_ratio": length / cost})
            for policy, best in (("static", 7), ("FailFast's rule", 9), ("cost-aware", 11)):
                one = lengths[name][best - at // 2]
                ends = {"acceptance_len_low": 0.9 * one["acceptance_len"], "acceptance_len_high": None}
                rows.append(one | ends | {"drafter": f"{name}: {policy}", "num_questions": 100})
        targets[target] = {"lengths": lengths, "rankings": {"alike": {"policies": {"all": rows}}}}
    return {"targets": targets, "groups": {"alike": names}, "profile": {"name": "vLLM_A6000"}}


def keep(folder: Path, record: Record) -> None:
    save_record(record, identity_path(folder, record.identity))


def arguments(name: str, places: dict[str, Path]) -> list[str]:
    """What draws the figure from what is made up here; of a figure that is new, all of it."""
    flags = importlib.import_module(f"plotting.{name}").main.flags
    needs_records = {"drafters": "results", "chains": "traces"}.get(flags[0], "results") if flags else "log"
    if own := {"trees": "trees", "training_curves": "curves", "head_to_head": "heads"}.get(name):
        return [str(places[own])]
    source = "ranking" if "engine" in flags and name not in OF_RECORDS else needs_records
    return [str(places[source]), *FLAGS.get(name, FEW if source == "results" else ())]


@pytest.fixture
def draw(places: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    made: list[Figure] = []
    monkeypatch.setattr(cli, "save", lambda figure, path: made.append(figure))

    def drawn(name: str, *flags: str) -> Figure:
        line = [*arguments(name, places), "--out", str(tmp_path / "x.png"), *flags]
        assert importlib.import_module(f"plotting.{name}").main(line) == 0
        return made.pop()

    return drawn


# ---- room for every text ---------------------------------------------------------------------------------------------


def texts_drawn(figure: Figure) -> list[tuple[str, np.ndarray]]:
    """Every text that really is drawn, and its box: left, bottom, right, top, in pixels."""
    found, original = [], Text.draw

    def noticed(text: Text, renderer: object, *rest: object) -> None:
        original(text, renderer, *rest)
        box = Text.get_window_extent(text)  # without the line to a name's point
        if text.get_visible() and text.get_text().strip() and box.width > 0:
            found.append((text.get_text(), box.extents))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", noticed)
        figure.draw_without_rendering()
    return found


def faults(figure: Figure) -> Iterator[str]:
    """Texts that overlap by more than a pixel, and texts that the edge cuts."""
    found = texts_drawn(figure)
    for text, (left, bottom, right, top) in found:
        if min(left, bottom) < -1 or right > figure.bbox.width + 1 or top > figure.bbox.height + 1:
            yield f"{text!r} is cut by the edge"
    for (text, one), (other_text, other) in combinations(found, 2):
        if np.all(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]) > 1):
            yield f"{text!r} meets {other_text!r}"


@pytest.mark.parametrize("name", FIGURES)
def test_no_text_meets_another_or_the_edge(draw: Callable[..., Figure], name: str, tmp_path: Path) -> None:
    """On its own page, and what was drawn as numbers; and on a column of a paper."""
    own, narrow = draw(name, "--data", str(tmp_path / "data.csv")), draw(name, "--width", str(NARROW))
    assert narrow.get_figwidth() == NARROW
    for figure in (own, narrow):
        assert len(texts_drawn(figure)) >= 5
        assert list(faults(figure)) == []
    require_numbers(own, read_rows(tmp_path / "data.csv"))


def test_the_check_sees_what_meets_and_what_is_cut(draw: Callable[..., Figure]) -> None:
    figure = draw("acc_pro_len_cdf")
    axes = figure.axes[0]
    axes.set_title(f"a title {'that goes on ' * 9}", loc="left")
    axes.text(0.5, 0.5, "one", transform=axes.transAxes)
    axes.text(0.5, 0.5, "another", transform=axes.transAxes)
    seen = " ".join(faults(figure))
    assert "is cut by the edge" in seen and "'another' meets 'one'" in seen or "'one' meets 'another'" in seen


def test_a_single_record_has_room_for_its_labels(draw: Callable[..., Figure], places: dict[str, Path]) -> None:
    """What --figures draws of every record."""
    figure = draw("acc_rate_over_time", "--drafters", "ar_None_sf_8", "--question_ids", "1")
    assert list(faults(figure)) == [] and len(figure.axes) == 2


def test_a_name_without_room_is_left_out_and_others_are_moved() -> None:
    figure, grid = style.panels(1, 1, 2.0)
    for place in (0.5, 0.501, 0.502, 0.503, 0.504, 0.505, 0.506):
        style.name_point(grid[0][0], "a long name of a point", (place, 0.5))
    fit.fit(figure, can_grow=False)
    names = [text for text in fit.texts_of(figure) if text.get_gid() == fit.NAME]
    assert 2 <= len(names) <= 7 and list(faults(figure)) == []


def test_words_stay_whole_where_lines_are_broken() -> None:
    assert fit.wrapped("drafter passes per round", 14) == "drafter passes\nper round"
    assert fit.wrapped("Qwen2.5-32B-Instruct", 6) == "Qwen2.5-32B-Instruct"
    assert fit.typeset_text("FailFast τ 0.45, N_max 60") == "FailFast τ 0.45, Nₘₐₓ 60"


# ---- what is drawn, as numbers ---------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def require_numbers(figure: Figure, rows: list[dict[str, str]]) -> None:
    """Every point of the figure's labelled lines is there, and no interval is upside down."""
    assert rows and {"panel", "series", "x", "y", "low", "high"} <= rows[0].keys()
    for axes in figure.axes:
        for line in axes.lines:
            if not str(line.get_label()).startswith("_"):
                mine = [(float(row["x"]), float(row["y"])) for row in rows if row["series"] == line.get_label()]
                places = [tuple(place) for place in np.asarray(line.get_xydata()).tolist()]
                assert {place for place in places if place == place} <= set(mine), line.get_label()
    known = [row for row in rows if row["low"] and row["high"] and row["series"][:1] != "_"]
    assert all(float(row["low"]) <= float(row["high"]) for row in known)


def test_bands_and_bars_give_their_bounds(draw: Callable[..., Figure], tmp_path: Path) -> None:
    for name in ("acc_pro_len_cdf", "frequency_insights_dataset"):
        draw(name, "--data", str(tmp_path / "data.csv"))
        rows = read_rows(tmp_path / "data.csv")
        assert all(row["low"] != "" for row in rows)
        assert all(float(row["low"]) - 1e-9 <= float(row["y"]) <= float(row["high"]) + 1e-9 for row in rows)
    draw("latency_breakdown_by_model", "--data", str(tmp_path / "data.csv"))
    totals = [row for row in read_rows(tmp_path / "data.csv") if row["series"] == "drafting and verifying"]
    assert len(totals) == 9 and {row["y"] for row in totals} == {palette.label_of(name) for name in FEW[1:]}
    known = [row for row in totals if row["x_low"]]  # where times do differ
    assert known and all(float(row["x_low"]) < float(row["x"]) < float(row["x_high"]) for row in known)
    figure = draw("pareto", "--data", str(tmp_path / "data.csv"))
    rows = read_rows(tmp_path / "data.csv")
    assert {palette.label_of(name) for name in SETTINGS} == {row["name"] for row in rows if row["name"]}
    assert len(figure.axes) == 1 and 2 <= sum(row["low"] != "" for row in rows) < len(SETTINGS)


# ---- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_as_asked(draw: Callable[..., Figure]) -> None:
    sized = draw(
        "pareto", "--width", "4", "--height", "3", "--dpi", "200", "--font", "DejaVu Serif", "--font_size", "6"
    )
    assert sized.get_size_inches().tolist() == [4, 3]
    words = [text for text in fit.texts_of(sized) if text.get_text() == "drafter passes per round"]
    assert [(one.get_fontfamily()[0], one.get_fontsize()) for one in words] == [("DejaVu Serif", 6.0)]
    own, bare, other = (draw("pareto", *flags) for flags in ((), ("--no_note", "--no_title"), ("--title", "Mine")))
    assert own.get_supxlabel() and not bare.get_supxlabel()
    assert "gsm8k" in own.axes[0].get_title(loc="left")
    assert [figure.axes[0].get_title(loc="left") for figure in (bare, other)] == ["", "Mine"]


def test_dots_per_inch_are_those_of_the_file(places: dict[str, Path], tmp_path: Path) -> None:
    from matplotlib.image import imread

    line = [*arguments("acc_pro_len_cdf", places), "--out", str(tmp_path / "x.png"), "--dpi", "50", "--width", "4"]
    assert importlib.import_module("plotting.acc_pro_len_cdf").main(line) == 0
    assert imread(tmp_path / "x.png").shape[1] == 200


def test_success_says_where_it_wrote_and_makes_folders(
    places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, data = tmp_path / "new" / "x.svg", tmp_path / "other" / "x.csv"
    line = [*arguments("acc_pro_len_cdf", places), "--out", str(out), "--data", str(data)]
    assert importlib.import_module("plotting.acc_pro_len_cdf").main(line) == 0
    assert capsys.readouterr().out == f"{out}\n{data}\n" and out.exists() and data.exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--width", "0"), "'0' is not 1 to 50 inches"),
        (("--height", "nan"), "'nan' is not 1 to 50 inches"),
        (("--dpi", "99999"), "is not 20 to 2400"),
        (("--font", "Nobody's"), "no font is called"),
        (("--data", "x.txt"), "--data x.txt: the name must end in .csv"),
    ],
)
def test_pages_that_cannot_be(
    flags: tuple[str, str], words: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [str(places["results"]), "--out", str(tmp_path / "x.png"), *flags]
    try:
        status = importlib.import_module("plotting.pareto").main(line)
    except SystemExit as stop:
        status = stop.code
    err = capsys.readouterr().err
    assert status == 2 and words in err and err.count("\n") == 1


def test_help_says_what_it_takes_and_keeps_examples_as_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for name in FIGURES:
        with pytest.raises(SystemExit):
            importlib.import_module(f"plotting.{name}").main(["--help"])
        shown = capsys.readouterr().out
        lines = [line.strip() for line in shown.splitlines()]
        examples = [one for one in lines if one.startswith(f"python -m plotting.{name} ")]
        assert examples and all("--out" in one or one.endswith("\\") for one in examples)
        assert all(ending in shown for ending in cli.FORMATS)
        assert any(kind in shown for kind in ("folders of results", "folders of traces", "SpecForge", "training.json"))
        assert "--engine" not in shown or "--pricing" in shown


# ---- single figures --------------------------------------------------------------------------------------------------


def test_a_wide_interval_does_not_set_an_axis() -> None:
    assert style.framed([Value(2.0, 1.9, 2.1), Value(3.0, 2.9, 3.1)]) is None
    limits = style.framed([Value(2.0, 0.0, 9.0), Value(3.0, 1.0, 11.0)])
    assert limits == (1.0, 4.0)


def test_another_machines_profile_is_said(
    draw: Callable[..., Figure], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for question in range(2):
        for made in (make_record(question, AR, provenance={"device_name": "a laptop"}), make_plain(question)):
            keep(tmp_path / "r", made)
    assert importlib.import_module("plotting.modelled_vs_measured").main([str(tmp_path / "r"), "--out", "x.png"]) == 0
    said = capsys.readouterr().err
    assert said == "careful, not the same machine: vLLM_A6000 is of NVIDIA RTX A6000, the measured times of a laptop\n"
