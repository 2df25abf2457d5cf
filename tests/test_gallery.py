"""Every figure, drawn as a PNG from the bundled family's records: not blank, labelled, and true to its data."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, product
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import imread
from pytest import approx

from plotting import cli, gallery
from plotting.theoretical_analysis import expected_tokens
from specdec.commands import rank as parse_log
from specdec.commands import replay
from specdec.commands import run as failfast
from specdec.latency.profile import load_profile
from specdec.records.record import Record, find_records, load_record
from specdec.traces.trace import find_traces, load_trace
from specdec.views.palette import label_of

pytestmark = pytest.mark.slow
QUESTIONS = ("0", "2", "3", "5", "13")
SETTINGS = (
    *("--drafters", "plain", "ar_sf", "dllm_sf", "failfast", "--drafter_thresholds", "0.05", "0.9", "--spec_len"),
    *("8", "4", "--sweep_lowconf_threshold", "0.2", "0.45", "--sweep_max_spec_len", "20", "30"),
)
FAILFAST, AR, DLLM = "dllm_0.05_df_0.45_20_10", "ar_None_sf_8", "dllm_0.05_sf_8"
UNITS = re.compile(r"\(|rate|per round|confidence|share|tokens|setting|question")


@dataclass(frozen=True)
class Results:
    """Traces of five questions, every setting replayed from them, and a live run with figures."""

    traces: Path
    replayed: Path
    live: Path

    def records(self, name: str) -> list[Record]:
        return [load_record(path) for path in find_records(self.replayed) if path.parent.name == name]

    def rows(self, *flags: str, engine: int = 0, live: bool = False) -> dict[str, dict]:
        """What parse_log.py says of each setting."""
        line = [str(self.live if live else self.replayed), "--json", *flags]
        return {row["drafter_name"]: row for row in json.loads(parse_log.run(line))["engines"][engine]["rows"]}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Results:
    folder = tmp_path_factory.mktemp("gallery")
    made = Results(folder / "traces", folder / "replayed", folder / "live")
    common = ("--question_ids", *QUESTIONS, "--device", "cpu", "--max_new_tokens")
    assert failfast.main(["--record", *SETTINGS, *common, "24", "--output_dir", str(made.traces)]) == 0
    replay.run([str(made.traces), *SETTINGS, "--workers", "1", "--output_dir", str(made.replayed)])
    live = ("--drafters", "plain", "ar_sf", "--spec_len", "8", "--figures", *common, "8")
    assert failfast.main([*live, "--output_dir", str(made.live)]) == 0
    return made


Draw = Callable[[str], Figure]


@pytest.fixture
def draw(results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Runs `NAME INPUT...` as a command, checks the file and the axes, and gives the figure."""
    made: list[Figure] = []
    save = cli.save
    monkeypatch.setattr(cli, "save", lambda figure, path: made.append(figure) or save(figure, path))

    def drawn(line: str) -> Figure:
        name, *arguments = line.format(**{key: str(value) for key, value in vars(results).items()}).split(" ")
        out = tmp_path / f"{name}.png"
        assert importlib.import_module(f"plotting.{name}").main([*arguments, "--out", str(out)]) == 0
        pixels = imread(out)[..., :3]
        assert 0.01 < (pixels < 0.95).any(axis=2).mean() < 0.9, "blank, or nothing but ink"
        return made.pop()

    return drawn


def require_labels(figure: Figure) -> None:
    """Every axis says what it shows, with its unit, itself or where the panel shares it."""
    for axes in figure.axes:
        for label, shared in ((Axes.get_xlabel, axes.get_shared_x_axes()), (Axes.get_ylabel, axes.get_shared_y_axes())):
            found = [text for one in shared.get_siblings(axes) if (text := label(one))]
            assert found and all(UNITS.search(text) for text in found), f"{label.__name__}: {found}"


def line_of(axes: Axes, label: str) -> dict[float, float]:
    line = next(line for line in axes.lines if line.get_label() == label)
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def marks_of(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """The marks that have error bars, by label."""
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    return {one.get_label(): list(zip(*one.lines[0].get_data(), strict=True)) for one in bars}


def bars_of(axes: Axes) -> list[BarContainer]:
    return [one for one in axes.containers if isinstance(one, BarContainer)]


# ---- records ---------------------------------------------------------------------------------------------------------


def test_acceptance_over_time(draw: Draw, results: Results) -> None:
    figure = draw(f"acc_rate_over_time {{replayed}} --drafters {FAILFAST} --question_ids 3")
    require_labels(figure)
    record = next(one for one in results.records(FAILFAST) if one.question_id == 3)
    rates, raster = figure.axes
    edges = [0, *accumulate(len(turn.emitted_tokens) for turn in record.rounds)]
    this_round, so_far = rates.lines
    assert list(this_round.get_xdata()) == edges
    assert list(this_round.get_ydata())[:-1] == [turn.acceptance_rate for turn in record.rounds]
    assert so_far.get_ydata()[-1] == approx(record.acceptance_rate)
    accepted, rejected = bars_of(raster)
    assert [bar.get_height() for bar in accepted] == [turn.accepted_len for turn in record.rounds]
    assert [bar.get_height() + bar.get_y() for bar in rejected] == [turn.draft_len for turn in record.rounds]
    assert [bar.get_x() for bar in accepted] == edges[:-1]


def test_lengths_of_drafts(draw: Draw, results: Results) -> None:
    figure = draw(f"acc_pro_len_cdf {{replayed}} --drafters {AR} {FAILFAST}")
    require_labels(figure)
    for axes, length in zip(figure.axes, ("draft_len", "accepted_len"), strict=True):
        for name in (AR, FAILFAST):
            shares = line_of(axes, label_of(name))
            for x in (0, 3, 8):
                rounds = [[t for t in one.rounds if t.draft_len] for one in results.records(name)]
                expected = np.mean([np.mean([getattr(turn, length) <= x for turn in turns]) for turns in rounds])
                assert shares[x] == approx(expected)
        assert len(axes.collections) == 2, "five questions have intervals"


def test_acceptance_by_position(draw: Draw, results: Results) -> None:
    """Against the definitions of docs/measures.md, round by round."""
    figure = draw(f"acceptance_by_position {{replayed}} --drafters {AR} {FAILFAST}")
    require_labels(figure)
    unconditional, conditional, histogram = figure.axes
    for name in (AR, FAILFAST):
        turns = [turn for one in results.records(name) for turn in one.rounds if turn.draft_len]
        came = {i: [t for t in turns if t.draft_len >= i and t.accepted_len >= i - 1] for i in (1, 2, 3)}
        for position, there in came.items():
            accepted = sum(turn.accepted_len >= position for turn in turns)
            assert line_of(unconditional, label_of(name))[position] == approx(accepted / len(turns))
            assert line_of(conditional, label_of(name))[position] == approx(accepted / len(there))
        exactly = line_of(histogram, label_of(name))
        assert exactly[0] == approx(sum(turn.accepted_len == 0 for turn in turns) / len(turns))
        assert max(line_of(unconditional, label_of(name))) == max(exactly)
    assert all(len(axes.collections) == 2 for axes in figure.axes), "five questions have intervals"


def test_runs_of_easy_tokens(draw: Draw, results: Results) -> None:
    figure = draw(f"consecutive_easy_cdf {{replayed}} --drafters {AR} {FAILFAST}")
    require_labels(figure)
    runs, tokens = (line_of(axes, label_of(AR)) for axes in figure.axes)
    shares = []
    for record in results.records(AR):
        own = [("." if turn.correction_token is not None or not turn.draft_len else "x") for turn in record.rounds]
        rounds = zip(record.rounds, own, strict=True)
        marks = ["x" * turn.accepted_len + mark * (turn.next_token is not None) for turn, mark in rounds]
        lengths = [len(run) for run in "".join(marks).split(".") if run]
        each = [length for length in lengths for _ in range(length)]
        shares.append([np.mean([length <= 5 for length in found]) for found in (lengths, each)])
    assert [runs[5], tokens[5]] == approx(np.mean(shares, axis=0).tolist())
    assert max(runs) == max(tokens) and runs[max(runs)] == 1.0


def test_difficulty(draw: Draw, results: Results) -> None:
    figure = draw(f"difficulty_intuition {{replayed}} --drafters {FAILFAST}")
    require_labels(figure)
    axes, records = figure.axes[0], results.records(FAILFAST)
    cells = [[path.get_extents() for path in one.get_paths()] for one in axes.collections]
    widths = [round(sum(box.width for box in boxes)) for boxes in cells]
    assert sum(widths) == sum(record.num_output_tokens for record in records)
    accepted = Counter(round(boxes[0].ymin) for boxes in cells if boxes)
    assert set(accepted) == set(range(5))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [f"bundled {number}" for number in QUESTIONS]


def test_one_answer_token_by_token(draw: Draw, results: Results) -> None:
    figure = draw(f"visualize_trajectory {{replayed}} --drafters {FAILFAST} --question_ids 3")
    record = next(one for one in results.records(FAILFAST) if one.question_id == 3)
    axes = figure.axes[0]
    fates = [patch.get_gid() for patch in axes.patches]
    assert fates.count("accepted") == record.num_accepted
    assert fates.count("rejected") == record.num_drafted - record.num_accepted
    assert fates.count("correction") == sum(turn.correction_token is not None for turn in record.rounds)
    texts = [text.get_text() for text in axes.texts if text.get_fontsize() > 6]
    kept = "".join(text for text, fate in zip(texts, fates, strict=True) if fate != "rejected")
    assert kept.replace("↵", "\n").startswith(record.output_text)


def test_one_answer_as_it_was_kept(draw: Draw, results: Results) -> None:
    figure = draw(f"accepted_trajectory {{replayed}} --drafters {FAILFAST} --question_ids 3")
    record = next(one for one in results.records(FAILFAST) if one.question_id == 3)
    fates = Counter(patch.get_gid() for patch in figure.axes[0].patches)
    corrections = sum(turn.correction_token is not None for turn in record.rounds)
    assert (fates["accepted"], fates["correction"], fates["rejected"]) == (record.num_accepted, corrections, 0)
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_fontsize() > 6]
    assert "".join(texts).replace("↵", "\n").startswith(record.output_text)
    assert not any("rejected" in text.get_text() for text in figure.legends[0].get_texts())


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "label", "drafters"),
    [
        ("frequency_insights_dataset", "AR", {4: "ar_None_sf_4", 8: AR}),
        ("frequency_insights_dataset", "dLLM, unmask 0.05", {4: "dllm_0.05_sf_4", 8: DLLM}),
        ("threshold_insights_dataset", "dLLM, static 8", {0.05: DLLM, 0.9: "dllm_0.9_sf_8"}),
        (
            "microbenchmark_thresholds",
            "FailFast, unmask 0.05, N_max 20, N 10",
            {0.2: "dllm_0.05_df_0.2_20_10", 0.45: FAILFAST},
        ),
        (
            "microbenchmark_maxlen",
            "FailFast, unmask 0.05, τ 0.45, N 10",
            {20: FAILFAST, 30: "dllm_0.05_df_0.45_30_10"},
        ),
    ],
)
def test_sweeps(draw: Draw, results: Results, name: str, label: str, drafters: dict[float, str]) -> None:
    line = f"{name} {{replayed}}"
    if name.startswith("micro"):  # of two unmask thresholds and two of the other number: one series is enough
        line += f" --drafters {' '.join(drafters.values())}"
    figure, rows = draw(line), results.rows()
    require_labels(figure)
    quantities = ("speedup_mean", "acceptance_rate", "passes_per_round")
    for axes, quantity in zip(figure.axes, quantities, strict=False):
        expected = {x: rows[drafter][quantity] for x, drafter in drafters.items()}
        assert line_of(axes, label) == approx(expected)
        bands = [one for one in axes.collections if isinstance(one, PolyCollection)]
        assert bands, "five questions have intervals"


def test_concavity(draw: Draw, results: Results) -> None:
    figure, rows = draw("concavity_intuition {replayed}"), results.rows()
    require_labels(figure)
    expected = [(rows[name]["passes_per_round"], rows[name]["acceptance_rate"]) for name in (DLLM, "dllm_0.9_sf_8")]
    marks = marks_of(figure.axes[0])
    assert marks["dLLM, static 8"] == [approx(pair) for pair in expected]
    assert marks["AR, static 8"] == [approx((rows[AR]["passes_per_round"], rows[AR]["acceptance_rate"]))]


def test_concavity_for_a_narrow_column(draw: Draw, results: Results) -> None:
    wide, narrow = draw("concavity_intuition {replayed}"), draw("concavity_intuition_wrapped {replayed}")
    require_labels(narrow)
    (ours,) = marks_of(narrow.axes[0]).items()
    assert ours == ("dLLM, static 8", marks_of(wide.axes[0])["dLLM, static 8"])
    assert narrow.get_size_inches()[0] < wide.get_size_inches()[0] / 2


def test_thresholds_question_by_question(draw: Draw, results: Results) -> None:
    figure = draw("threshold_insights_problem {replayed} --question_ids 13 3")
    require_labels(figure)
    quantities = ("speedup_mean", "acceptance_rate", "passes_per_round")
    for axes, (quantity, number) in zip(figure.axes, product(quantities, (3, 13)), strict=True):
        if quantity == quantities[0]:
            assert axes.get_title(loc="left") == f"bundled, question {number}"
        folder = results.replayed / "pickles" / "bundled" / "bundled" / str(number)
        ranking = json.loads(parse_log.run([str(folder), "--json"]))
        rows = {row["drafter_name"]: row for row in ranking["engines"][0]["rows"]}
        assert line_of(axes, "dLLM, static 8") == approx({x: rows[f"dllm_{x}_sf_8"][quantity] for x in (0.05, 0.9)})


def test_too_many_questions_for_columns(results: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("plotting.threshold_insights_problem").main
    assert main([str(results.replayed), "--out", str(tmp_path / "x.png")]) == 2
    assert "choose 4 by --question_ids" in capsys.readouterr().err
    (tmp_path / "ranking.json").write_text("{}")
    assert main([str(tmp_path / "ranking.json"), "--out", str(tmp_path / "x.png")]) == 2
    assert "says nothing of single questions" in capsys.readouterr().err


def test_pareto(draw: Draw, results: Results) -> None:
    figure, rows = draw("pareto {replayed}"), results.rows()
    require_labels(figure)
    marks = [mark for found in marks_of(figure.axes[0]).values() for mark in found]
    assert sorted(marks) == approx(
        np.array(sorted((row["passes_per_round"], row["acceptance_len"]) for row in rows.values()))
    )
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert "2×" in labels, "the profile has one price per pass, so equally fast settings lie on a line"


def test_closed_form(draw: Draw, results: Results) -> None:
    figure, rows = draw("theoretical_analysis {replayed}"), results.rows()
    require_labels(figure)
    profile = load_profile("vLLM_A6000")
    cost = profile.draft_pass_ms / profile.target_ms_per_token["Qwen2.5-32B-Instruct"]
    tokens, _, speed, _ = figure.axes
    (marks,) = marks_of(tokens).values()
    assert marks == [approx((k, rows[f"ar_None_sf_{k}"]["acceptance_len"])) for k in (4, 8)]
    closed, speeds = line_of(tokens, "closed form"), line_of(speed, "closed form")
    assert closed[4] + closed[8] == approx(sum(value for _, value in marks)), "fitted to what was measured"
    assert speeds[8] == approx(closed[8] / (1 + 8 * cost))
    sawtooth = line_of(figure.axes[3], "one pass per sub-block of 8")
    assert sawtooth[8] > sawtooth[9], "the ninth token needs another pass"
    assert expected_tokens(0.5, 2) == 1.75


def test_share_of_the_ceiling(draw: Draw, results: Results) -> None:
    figure = draw("oracle_gap {replayed} --trace_dir {traces}")
    require_labels(figure)
    rows = sorted(results.rows("--trace_dir", str(results.traces)).values(), key=lambda row: -row["ceiling_share"])
    share, *losses = bars_of(figure.axes[0])
    assert [bar.get_width() for bar in share] == approx([row["ceiling_share"] for row in rows])
    ends = [bar.get_x() + bar.get_width() for bar in losses[-1]]
    assert ends == approx([1.0] * len(rows)), "all time is accounted for"


def test_latencies(draw: Draw, results: Results) -> None:
    targets = ("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct")
    figure = draw(
        f"latency_breakdown_by_model {{replayed}} --drafters {AR} {FAILFAST} --latency_target {' '.join(targets)}"
    )
    require_labels(figure)
    widths = [(one.get_label(), one[0].get_width()) for one in bars_of(figure.axes[0])]
    expected = []
    for target in targets:
        rows = results.rows("--latency_target", target)
        plain = next(iter(rows.values()))
        expected.append(("plain", plain["speedup_ratio"] * plain["total_ms"] / 5e3))
        for row in (rows[name] for name in (FAILFAST, AR)):
            expected += [("drafting", row["draft_ms"] / 5e3), ("verifying", row["verify_ms"] / 5e3)]
    assert sorted(label for label, _ in widths) == sorted(label for label, _ in expected)
    assert sorted(width for _, width in widths) == approx(sorted(width for _, width in expected))


def test_calibration(draw: Draw, results: Results) -> None:
    figure = draw("calibration {traces} --chains ar dllm_0.05")
    require_labels(figure)
    seen = []
    for trace in map(load_trace, find_traces(results.traces)):
        for at, chain in enumerate(trace.chains["ar"].chains):
            # What a pass writes after the text's end, or as its last token, is never drafted.
            left = min(len(trace.output_tokens), trace.identity.max_new_tokens - 1) - at
            for place, (token, confidence) in enumerate(
                zip(chain.tokens[:left], chain.confidences[:left], strict=True)
            ):
                is_accepted = trace.output_tokens[at + place] == token
                seen.append((confidence, is_accepted))
                if not is_accepted:
                    break
    tenths = [[pair for pair in seen if min(int(pair[0] * 10), 9) == tenth] for tenth in range(10)]
    expected = [tuple(np.mean(inside, axis=0)) for inside in tenths if inside]
    assert marks_of(figure.axes[0])["tenths of the confidences"] == [approx(pair, abs=1e-6) for pair in expected]
    error = sum(len(inside) * abs(np.subtract(*np.mean(inside, axis=0))) for inside in tenths if inside) / len(seen)
    assert f"ECE {error:.3f}" in figure.axes[0].get_title(loc="left")


def test_modelled_and_measured(draw: Draw, results: Results) -> None:
    figure = draw("modelled_vs_measured {live}")
    require_labels(figure)
    modelled, measured = (results.rows(engine=engine, live=True)[AR]["speedup_mean"] for engine in (0, 1))
    assert marks_of(figure.axes[0])["AR, static"] == [approx((measured, modelled))]


def test_a_live_run_draws_its_records(results: Results) -> None:
    """Beside the pickles' layout; plain decoding drafts nothing, so that there is nothing to draw."""
    drawn = sorted(path.relative_to(results.live / "figures") for path in results.live.rglob("*.png"))
    assert drawn == sorted(Path("bundled", "bundled", number, AR, "8.png") for number in QUESTIONS)
    pickles = {path.relative_to(results.live / "pickles").with_suffix(".png") for path in find_records(results.live)}
    assert set(drawn) <= pickles
    gone = results.live / "figures" / drawn[0]
    gone.unlink()
    common = ("--max_new_tokens", "8", "--question_ids", *QUESTIONS, "--output_dir", str(results.live))
    assert failfast.main(["--read_pickle", "--figures", *common]) == 0
    assert gone.exists(), "stored records can be drawn without any model"
    assert failfast.main(["--record", "--figures", *common]) == 2


# ---- the gallery itself ----------------------------------------------------------------------------------------------


def test_the_committed_gallery_shows_every_figure() -> None:
    folder = Path(gallery.__file__).parent.parent / "docs" / "gallery"
    modules = {path.stem for path in Path(gallery.__file__).parent.glob("*.py") if "__main__" in path.read_text()}
    assert {picture.name for picture in gallery.PICTURES} == modules - {"gallery", *gallery.ELSEWHERE}
    assert modules > gallery.ELSEWHERE.keys()
    text = (folder / "README.md").read_text(encoding="utf-8")
    for picture in gallery.PICTURES:
        file = folder / picture.file
        assert file.name in text and 0 < file.stat().st_size < 150_000
    assert text == gallery.page(folder)
