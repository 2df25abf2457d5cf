"""Figures: their small rules on made-up data, and that none uses pyplot."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_up import made_up_trace
from matplotlib.text import Text
from pytest import approx
from samples import FAILFAST, make_record, make_round

from plotting import gallery, style
from plotting.calibration import figure, seen_by_question
from plotting.cdfs import cdf_points
from plotting.consecutive_easy_cdf import easy_runs
from plotting.pareto import frontier
from plotting.sweeps import sweeps
from plotting.theoretical_analysis import aligned_passes, expected_tokens, mean_passes, speedup
from plotting.visualize_trajectory import cells_of, layout
from specdec.drafters.ar import ArStatic
from specdec.drafters.block_diffusion import DllmStatic, FailFast
from specdec.ranking.statistics import Value, ratio_values
from specdec.ranking.table import Row
from specdec.records.turns import turn_id
from specdec.traces.calibration import expected_calibration_error, tokens_seen
from specdec.views import palette
from specdec.views.paper import escaped
from specdec.views.trajectory import BYTES, Piece, Step

PLOTTING = Path(gallery.__file__).parent


def test_runs_end_with_a_correction_and_where_nothing_was_drafted() -> None:
    rounds = [
        make_round(3, (5, 6, 7), 3),  # and a bonus
        make_round(7, (5, 6), 2, next_token=None),
        make_round(9, (5, 6, 7), 1),  # and a correction
        make_round(11, (), 0),
        make_round(12, (5,), 0),
        make_round(13, (5, 6), 2),
    ]
    assert easy_runs(make_record(rounds=rounds)) == [7, 3]


def test_a_question_counts_once_in_a_distribution() -> None:
    points = cdf_points([0, 1, 2], [[0, 1], [1, 2, 2, 2]])
    assert [point.value for point in points] == [0.25, 0.625, 1.0]
    assert all(point.low is None for point in points), "two questions say nothing about their spread"
    known = cdf_points([0, 1], [[0], [0], [0], [1], [1]])[0]
    assert 0 <= known.low < known.value < known.high <= 1


def test_ratios_have_intervals_from_five_questions_on() -> None:
    ones = np.ones((5, 1))
    assert ratio_values(ones[:4], ones[:4] * 2)[0] == Value(0.5)
    alike = np.array([[2], [2], [2], [2], [4]])  # too many resamples see no spread: the interval would have no end
    assert ratio_values(alike, ones[:1].repeat(5, 0)) == [Value(2.4)]
    (point,) = ratio_values(np.array([[1], [2], [3], [4], [0]]), np.array([[2], [4], [4], [4], [4]]))
    assert point.low < point.value < point.high and point.value == approx(10 / 18)
    numerators, weights = np.array([[1.0, 0.0]] * 6), np.array([[2.0, 0.0]] * 6)
    assert [point.value for point in ratio_values(numerators, weights)] == approx([0.5, float("nan")], nan_ok=True)
    assert Value(0.9, 0.7, 1.2).within(0, 1) == Value(0.9, 0.7, 1)


def test_settings_that_differ_in_one_number_are_a_series() -> None:
    names = ("ar_None_sf_8", "ar_None_sf_4", "dllm_0.05_sf_8", "dllm_0.9_sf_8", "dllm_0.9_sf_4", FAILFAST)
    rows = [Row(name, values={"speedup_mean": Value(1.0)}) for name in names]
    (series,) = sweeps(rows, ArStatic, "draft_len")
    assert (series.xs, series.label) == ([4, 8], "")
    (series,) = sweeps(rows, DllmStatic, "unmask_threshold")
    assert (series.xs, series.label) == ([0.05, 0.9], "static 8")
    assert sweeps(rows, FailFast, "tau") == []
    others = [Row(FAILFAST + end, values=rows[0].values) for end in ("_w9", "_strict")]
    assert sweeps([*rows, *others], FailFast, "max_draft_len") == []  # nor are windows or rules one setting
    (series,) = sweeps([*rows, *others], FailFast, "first_window")
    assert (series.xs, series.label) == ([9, 10], "unmask 0.05, τ 0.45, N_max 60, N 10")
    assert sweeps(rows, ArStatic, "draft_len", "acceptance_rate") == []


def test_the_frontier_is_what_nothing_beats_in_both() -> None:
    places = {"ar_None_sf_1": (1, 2), "ar_None_sf_2": (2, 3), "ar_None_sf_3": (3, 2.5), "ar_None_sf_4": (1, 1.5)}
    rows = [
        Row(name, values={"passes_per_round": Value(x), "acceptance_len": Value(y)}) for name, (x, y) in places.items()
    ]
    assert [one.drafter_name for one in frontier(rows)] == ["ar_None_sf_1", "ar_None_sf_2"]


@pytest.mark.parametrize(("acceptance", "draft_len", "tokens"), [(0.5, 1, 1.5), (0.5, 2, 1.75), (1.0, 4, 5), (0, 7, 1)])
def test_expected_tokens(acceptance: float, draft_len: int, tokens: float) -> None:
    assert expected_tokens(acceptance, draft_len) == tokens
    assert sum(acceptance**k for k in range(draft_len + 1)) == tokens, "the series in one sum"


def test_block_drafting_saws() -> None:
    assert [aligned_passes(k, 8) for k in (1, 8, 9, 16, 17)] == [1, 1, 2, 2, 3]
    mean = [np.mean([(first + k - 1) // 8 + 1 for first in range(8)]) for k in (1, 8, 9, 20)]
    assert [mean_passes(k, 8) for k in (1, 8, 9, 20)] == approx(mean)
    assert speedup(1.0, 4, 0.25, 4) == 2.5


def test_calibration_error() -> None:
    rows = [
        {"num_tokens": 30, "mean_confidence": 0.9, "acceptance_rate": 0.7},
        {"num_tokens": 10, "mean_confidence": 0.5, "acceptance_rate": 0.5},
    ]
    assert expected_calibration_error(rows) == approx(0.15)


def test_turns_of_a_conversation_are_one_question_of_a_calibration() -> None:
    first, second, other = (made_up_trace(seed) for seed in range(3))
    dataset, row = first.identity.dataset, first.question_id
    turn = replace(second, identity=replace(second.identity, dataset=dataset, question_id=turn_id(row, 1)))
    seen = seen_by_question([first, turn, other], "ar")
    assert list(seen) == [(dataset, row), (other.identity.dataset, other.question_id)]
    assert len(seen[dataset, row]) == sum(len(list(tokens_seen(trace, "ar"))) for trace in (first, second))
    text = [one.get_text() for one in figure([first, turn, other], ["ar"]).findobj(Text)]
    assert any("2 questions" in one for one in text)


def test_drafters_differ_in_colour_line_marker_and_grey() -> None:
    kinds = palette.legend()
    assert len({kind.hue for kind in kinds}) == len({kind.marker for kind in kinds}) == len(kinds)
    found = [palette.look_of(name) for name in ("ar_None_sf_4", "ar_None_sf_8", FAILFAST, "dllm_0.05_sf_8", "plain")]
    assert len({look.colour for look in found}) == len({str(look.line) for look in found}) == len(found)
    greys = [
        0.299 * r + 0.587 * g + 0.114 * b for r, g, b in map(_rgb, (style.ACCEPTED, style.REJECTED, style.CORRECTION))
    ]
    assert min(abs(a - b) for i, a in enumerate(greys) for b in greys[:i]) > 0.2


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[begin : begin + 2], 16) / 255 for begin in (1, 3, 5))


def test_a_trajectory_breaks_at_line_ends_and_shows_hostile_text_as_text() -> None:
    step = Step([Piece("$x$\n"), Piece("汉字")], [Piece("a\nb")], Piece("F0 9F", BYTES), True, [0.9, 0.5, None])
    cells = layout([step, step], 0)
    assert [(cell.line, cell.column, cell.text) for cell in cells[:4]] == [
        (0, 0, "$x$↵"),
        (1, 0, "□□"),
        (1, 2, "a↵b"),
        (1, 5, "<F0 9F>"),
    ]
    assert [cell.opens for cell in cells[:5]] == [0, None, None, None, 1]
    assert cells_of("汉a") == 3
    long = Step([Piece("x" * 500)], [], None, False, [None])
    assert max(cell.column + cell.width for cell in layout([long], 0)) <= 96


def test_latex_is_escaped() -> None:
    assert escaped(r"50% of a_b\ τ") == r"50\% of a\_b\textbackslash{} $\tau$"


@pytest.mark.parametrize("path", sorted(PLOTTING.glob("*.py")), ids=lambda path: path.stem)
def test_no_figure_uses_pyplot(path: Path) -> None:
    """Its global state would leak from one figure into the next, and may want a screen."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)}
    assert not [name for name in names if "pyplot" in name]
