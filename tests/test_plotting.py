"""Figures: what the paper published beside them, good and bad input, and the files."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest
from made_up import made_up_trace
from matplotlib.figure import Figure
from matplotlib.text import Text
from paper_numbers import ranking_of
from pytest import approx
from samples import AR, FAILFAST, make_plain, make_record, make_round

from plotting import acc_rate_over_time, cli, eagle_training, gallery, style
from plotting.inputs import Asked, read_tables
from plotting.sweeps import sweeps
from specdec.decoding.chains import Chains
from specdec.drafters.block_diffusion import FailFast
from specdec.ranking.statistics import Value
from specdec.ranking.table_files import read_table_file
from specdec.records.record import Record, identity_path, save_record
from specdec.traces.trace import save_trace, trace_path
from specdec.views import captions, palette

OF_RECORDS = (
    "acc_rate_over_time",
    "acc_pro_len_cdf",
    "acceptance_by_position",
    "consecutive_easy_cdf",
    "difficulty_intuition",
    "visualize_trajectory",
)
OF_RANKINGS = (
    "frequency_insights_dataset",
    "threshold_insights_dataset",
    "microbenchmark_thresholds",
    "microbenchmark_maxlen",
    "concavity_intuition",
    "theoretical_analysis",
    "pareto",
    "oracle_gap",
    "latency_breakdown_by_model",
    "modelled_vs_measured",
    "pretty_table",
)
EVERY = (*OF_RECORDS, *OF_RANKINGS, "calibration")
FAILFAST_60 = "dllm_0.05_df_0.2_60_10"
# What the paper published, in small: made-up numbers in its layout.
EXCERPT = {
    "tau_sweep_MATH_32B": {"tau": [0.05, 0.45, 0.95], "speedup": [3.0, 5.0, 4.0]},
    "N_max_sweep_MATH_32B": {"N_max": [10, 60], "speedup": [4.0, 5.0]},
    "static_len_8_threshold_sweep_MATH_32B": {
        "passes_per_round": [2.0, 3.0],
        "acceptance_pct": [50.0, 60.0],
        "ar_drafter": {"passes_per_round": 8, "acceptance_pct": 58.0},
    },
    "latency_breakdown_ms_per_query_[draft,verify,total]": {"Qwen2.5-32B": {"ar": [4000, 5000, 9000]}},
}


def run(name: str, *arguments: object) -> int:
    return importlib.import_module(f"plotting.{name}").main(list(map(str, arguments)))


def save(folder: Path, *records: Record) -> Path:
    for record in records:
        save_record(record, identity_path(folder, record.identity))
    return folder


def of_target(record: Record, target: str) -> Record:
    return dataclasses.replace(record, identity=dataclasses.replace(record.identity, target=target))


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Two drafters and plain decoding on two questions, with times."""
    made = [make_record(q, name) for q in (0, 1) for name in (AR, "ar_None_sf_4", FAILFAST)]
    return save(tmp_path / "results", *made, make_plain(0), make_plain(1))


@pytest.fixture
def ranking(tmp_path: Path) -> Path:
    """A ranking JSON with NaN for one speedup."""
    rows = [{"drafter_name": AR, "speedup_mean": float("nan"), "acceptance_rate": 0.5, "num_questions": 3}]
    path = tmp_path / "nan.json"
    path.write_text(json.dumps({"engines": [{"engine": "E", "rows": rows}]}))
    return path


# ---- the paper's numbers ---------------------------------------------------------------------------------------------


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "paper.json"
    path.write_text(json.dumps(ranking_of(EXCERPT, "paper")))
    return path


def test_published_numbers_are_drawn_in_grey_beside_ours(
    tmp_path: Path, paper: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Figure] = []
    monkeypatch.setattr(cli, "save", lambda figure, path: made.append(figure))
    ours = ranking_of({"tau_sweep_MATH_32B": {"tau": [0.2, 0.45], "speedup": [2.0, 2.5]}}, "ours")
    (tmp_path / "ours.json").write_text(json.dumps(ours))
    assert run("microbenchmark_thresholds", tmp_path / "ours.json", "--reference", paper, "--out", "x.png") == 0
    lines = made[0].axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[2.0, 2.5], [3.0, 5.0, 4.0]]
    assert [line.get_color() for line in lines] == [palette.look_of(FAILFAST_60).colour, palette.GREY]
    assert lines[1].get_label().startswith("paper: FailFast")


@pytest.mark.parametrize(
    "name", ["microbenchmark_thresholds", "microbenchmark_maxlen", "concavity_intuition", "pareto", "pretty_table"]
)
def test_the_published_numbers_alone_make_these_figures(tmp_path: Path, paper: Path, name: str) -> None:
    flags = ["--drafters", "dllm_0.05_sf_8", "dllm_0.1_sf_8"] if name == "pareto" else []
    out = tmp_path / ("x.md" if name == "pretty_table" else "x.svg")
    status = run(name, paper, *flags, "--engine", "vLLM_A6000, Qwen2.5-32B-Instruct", "--out", out)
    assert status == (2 if name == "pareto" else 0), "the paper gives no acceptance lengths"
    assert out.exists() == (status == 0)


def test_published_times_are_per_question(paper: Path) -> None:
    row = read_table_file(paper)[1].rows[0]
    times = [row.per_question(name) for name in ("draft_ms", "total_ms")]
    assert (row.own_label, times) == ("AR", [Value(4e3), Value(9e3)])


def test_the_committed_reference_is_of_this_layout() -> None:
    first, *others = read_table_file(gallery.PAPER)
    taus = sweeps(first.rows, FailFast, "tau", "speedup_mean")[0]
    assert len(taus.xs) == 19 and max(one.values["speedup_mean"].value for one in taus.rows) == 4.906
    assert [len(one.rows) for one in others] == [3, 3]


# ---- inputs ----------------------------------------------------------------------------------------------------------


def test_records_and_their_ranking_say_the_same(records: Path, tmp_path: Path) -> None:
    from specdec.commands import rank as parse_log

    path = tmp_path / "ranking.json"
    flags = ["--latency_profile", "vLLM_A6000"]
    path.write_text(parse_log.run([str(records), "--json", *flags]))
    for ours, theirs in zip(read_tables([records], Asked()), read_tables([path], Asked()), strict=True):
        assert ours.engine == theirs.engine
        for left, right in zip(ours.rows, theirs.rows, strict=True):
            shared = left.values.keys() & right.values.keys()
            assert len(shared) >= 9 and left.drafter_name == right.drafter_name
            assert {key: left.values[key].value for key in shared} == approx(
                {key: right.values[key].value for key in shared}
            )


def test_degenerate_answers_can_be_left_out(tmp_path: Path) -> None:
    loop = make_record(1, AR, [make_round(3 + 4 * i, (5, 5, 5), 3, next_token=5) for i in range(40)])
    save(tmp_path, make_record(0, AR), loop)
    whole, without = (read_tables([tmp_path], Asked(without_degenerate=flag))[0] for flag in (False, True))
    assert (whole.rows[0].num_questions, whole.num_degenerate) == (2, 0)
    assert (without.rows[0].num_questions, without.num_degenerate) == (1, 1)
    assert captions.ranking_note([without]) == "1 question (1 degenerate left out)"


def one_line(capsys: pytest.CaptureFixture[str], name: str) -> str:
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"python -m plotting.{name}: error: "), err
    return err


@pytest.mark.parametrize("letter", ["i", "W"])
def test_a_note_is_broken_where_the_picture_ends(letter: str) -> None:
    figure, _ = style.panels(1, 1, 3.0)
    style.note(figure, " ".join([5 * letter] * 60))
    figure.draw_without_rendering()
    (box,) = (text.get_window_extent() for text in figure.findobj(Text) if letter in text.get_text())
    assert box.x0 > 0 and 0.8 * figure.bbox.width < box.x1 < figure.bbox.width


@pytest.mark.parametrize("name", EVERY)
def test_no_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / ("x.tex" if name == "pretty_table" else "x.png")
    (tmp_path / "empty").mkdir()
    for missing in ("empty", "nowhere"):
        assert run(name, tmp_path / missing, "--out", out) == 2
        assert missing in one_line(capsys, name)
    assert not out.exists()


@pytest.mark.parametrize("name", [*OF_RECORDS, *OF_RANKINGS])
def test_one_record(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It draws what one record can show, or says what it takes."""
    enough = ("acc_rate_over_time", "consecutive_easy_cdf", "difficulty_intuition", "visualize_trajectory")
    enough += ("acceptance_by_position", "pareto", "latency_breakdown_by_model", "pretty_table")
    out = tmp_path / ("x.tex" if name == "pretty_table" else "x.png")
    status = run(name, save(tmp_path / "results", make_record()), "--out", out)
    assert status == (0 if name in enough else 2)
    assert out.exists() == (status == 0)
    if status:
        one_line(capsys, name)


@pytest.mark.parametrize("name", [*OF_RECORDS, *OF_RANKINGS])
def test_several_targets(name: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(records, *(of_target(make_record(q, AR), "Qwen2.5-7B-Instruct") for q in (0, 1)))
    out = tmp_path / ("x.md" if name == "pretty_table" else "x.png")
    status = run(name, records, "--out", out)
    if name == "latency_breakdown_by_model":
        assert status == 0, "its bars are grouped by target"
    else:
        assert status == 2 and "several targets (Qwen2.5-7B-Instruct, bundled)" in one_line(capsys, name)


@pytest.mark.parametrize("name", OF_RANKINGS)
def test_numbers_that_are_none(name: str, ranking: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, ranking, "--out", tmp_path / ("x.md" if name == "pretty_table" else "x.png")) == 2
    assert "ar_None_sf_3: speedup_mean is not a finite number but nan" in one_line(capsys, name)


def test_other_bad_files(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    row = {"engine": "E", "rows": [{"drafter_name": "nobody"}]}
    texts = ("{", "[]", "{}", '{"engines": 3}', '{"engines": []}', json.dumps({"engines": [row]}))
    for text in texts:
        bad.write_text(text)
        assert run("pareto", bad, "--out", tmp_path / "x.png") == 2
        assert "bad.json" in one_line(capsys, "pareto")
    bad.write_text('{"cases": {"one": {"measured_speedup": NaN, "modelled_speedup": 1.0}}}')
    assert run("modelled_vs_measured", bad, "--out", tmp_path / "x.png") == 2
    assert "case one has no finite" in one_line(capsys, "modelled_vs_measured")


def test_scripted_cases_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Figure] = []
    monkeypatch.setattr(cli, "save", lambda figure, path: made.append(figure))
    path = tmp_path / "speculation.json"
    path.write_text('{"target": "T", "cases": {"one": {"measured_speedup": 2.0, "modelled_speedup": 2.5}}}')
    assert run("modelled_vs_measured", path, "--out", "x.png") == 0
    assert made[0].axes[0].containers[0].lines[0].get_xydata().tolist() == [[2.0, 2.5]]


def test_a_trace_with_a_confidence_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = made_up_trace(0)
    trace.chains["ar"].arrays["confidences"][0] = float("nan")
    with monkeypatch.context() as unchecked:
        unchecked.setattr(Chains, "check", lambda self: None)
        save_trace(trace, trace_path(tmp_path, trace.identity))
    assert run("calibration", tmp_path, "--out", tmp_path / "x.png") == 2
    assert "confidences are not probabilities" in one_line(capsys, "calibration")


@pytest.mark.parametrize("name", EVERY)
def test_outputs_that_cannot_be_written(
    name: str, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, records, "--out", tmp_path / "x.jpg") == 2
    assert "the name must end in" in one_line(capsys, name)
    if name in ("acc_pro_len_cdf", "pretty_table"):
        (tmp_path / "file").write_text("")
        assert run(name, records, "--out", tmp_path / "file" / ("x.md" if name == "pretty_table" else "x.pdf")) == 2
        assert "cannot write" in one_line(capsys, name)


def test_other_mistakes(records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "x.png")
    save(tmp_path / "plain", make_plain(0))
    for arguments, words in [
        ((records, "--drafters", "ar_None_sf_9"), "no input is of drafter ar_None_sf_9"),
        ((records, "--question_ids", "7"), "no input is of question 7"),
        ((tmp_path / "plain",), "plain decoding alone"),
    ]:
        assert run("acc_pro_len_cdf", *arguments, *out) == 2
        assert words in one_line(capsys, "acc_pro_len_cdf")
    assert run("pareto", records, "--drafters", "ar_None_sf_9", *out) == 2
    assert "no input is of drafter ar_None_sf_9 (there are: " in one_line(capsys, "pareto")
    assert run("pareto", records, "--engine", "nothing", *out) == 2
    assert "no --pricing 'nothing'" in one_line(capsys, "pareto")
    assert run("visualize_trajectory", records, *out) == 2
    assert "choose one" in one_line(capsys, "visualize_trajectory")
    with pytest.raises(SystemExit) as stop:
        run("pareto", records, "--nonsense", *out)
    assert stop.value.code == 2


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_files_are_the_same_again_and_text_stays_text(records: Path, tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    for path in (first, second):
        assert run("acc_pro_len_cdf", records, "--drafters", AR, FAILFAST, "--out", path) == 0
    data = first.read_bytes()
    assert data == second.read_bytes()
    if suffix == "pdf":
        assert b"CIDFontType2" in data and b"/Type3" not in data
    if suffix == "svg":
        assert re.search(r"<text[^>]*>tokens drafted per round</text>", data.decode())


def test_a_record_is_drawn_in_its_place(tmp_path: Path) -> None:
    acc_rate_over_time.write_figure(make_record(4), tmp_path)
    acc_rate_over_time.write_figure(make_plain(4), tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert found == ["figures/bundled/gsm8k/4/ar_None_sf_3/64.png"]


# ---- a training's log ------------------------------------------------------------------------------------------------


def bar(epoch: int, step: int, accuracy: str, length: int = 100) -> str:
    return f"Training Epoch {epoch}:  61%|###  | {step}/{length} [01:02<00:40, 3.1it/s, loss=0.56, acc={accuracy}]"


def test_a_training_is_read_from_its_progress_bars(tmp_path: Path) -> None:
    """Bars end with a carriage return; a step that comes again counts as it came last; epochs follow each other."""
    log = tmp_path / "7b.log"
    bars = [bar(0, 1, "0.25"), bar(0, 2, "0.5"), "words, acc=0.9", bar(1, 1, "1.00"), bar(0, 2, "0.75"), bar(1, 2, "x")]
    log.write_bytes("\r".join(bars).encode() + b"\n\xff\xfe\r" + bar(1, 3, "0.5").encode())
    assert eagle_training.read_log(log) == [(1, 0.25), (2, 0.75), (101, 1.0), (103, 0.5)]


def test_a_training_is_drawn_smoothed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Figure] = []
    monkeypatch.setattr(cli, "save", lambda figure, path: made.append(figure))
    for name in ("7b", "14b"):
        (tmp_path / f"{name}.log").write_text("\n".join(bar(0, step, f"0.{step % 10}0", 900) for step in range(1, 901)))
    assert run("eagle_training", tmp_path / "7b.log", tmp_path / "14b.log", "--out", "x.png") == 0
    lines = made[0].axes[0].lines
    assert [line.get_label() for line in lines] == ["7b", "14b"]
    steps, values = lines[0].get_data()
    assert list(steps) == list(range(1, 901)) and values[:3] == pytest.approx([0.1, 0.15, 0.2])
    assert values[-1] == pytest.approx(0.45), "the mean of whole tens"


def test_a_log_without_progress_bars_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.log").write_text("Epoch 1: 5/10 loss=0.3\n")
    for path, said in ((tmp_path / "x.log", "no progress bar"), (tmp_path / "none.log", "cannot read")):
        assert run("eagle_training", path, "--out", "x.png") == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
