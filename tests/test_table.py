"""The table and the palette: every view says the same numbers, and every drafter looks the same everywhere."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from samples import make_plain, make_record
from test_comparisons import example
from written import reader

from plotting import latency_breakdown_by_model, oracle_gap, pareto
from plotting.acc_pro_len_cdf import figure as lengths_figure
from plotting.frequency_insights_dataset import SWEEP
from specdec.commands.report import report_html
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.base import Spec
from specdec.drafters.block_diffusion import CostAware, DllmStatic, FailFast
from specdec.drafters.families import kinds, paper
from specdec.drafters.plain import Plain
from specdec.errors import UserError
from specdec.ranking.ceiling import Ceiling
from specdec.ranking.entries import Entry
from specdec.ranking.quantities import CEILING_SHARES, MEASURED_ONLY, QUANTITIES
from specdec.ranking.statistics import Value
from specdec.ranking.table import Table, table_of
from specdec.ranking.table_files import read_table_file
from specdec.views import palette
from specdec.views.paper import COLUMNS, latex, markdown
from specdec.views.report_data import looks, report_data
from specdec.views.table_data import ranking_csv, ranking_json
from specdec.views.tables import ranking_report

NAMES = ("speedup_mean", "speedup_ratio", "acceptance_rate", "acceptance_len", "passes_per_round", "ceiling_share")


def entries() -> list[Entry]:
    """Four drafters on 40 questions, all with ceilings, of unequal lengths and rates."""
    made = []
    for one in example():
        accepted = 40 + one.question_id * 7 % 13 + len(one.drafter_name)
        ceiling = Ceiling(50.0 + one.question_id % 5, 20.0, 20.0, 10.0 - one.question_id % 5)
        changes = {"num_accepted": accepted, "num_output_tokens": accepted + 40, "ceilings": {"E": ceiling}}
        made.append(Entry(**(vars(one) | changes)))
    return made


@pytest.fixture(scope="module")
def table() -> Table:
    return table_of(entries(), "E")


def shown(table: Table, name: str) -> list[str]:
    return [QUANTITIES[name].text(row.values[name]) for row in table.rows]


# ---- the same numbers everywhere -------------------------------------------------------------------------------------


def test_every_quantity_has_an_interval_around_its_value(table: Table) -> None:
    for row in table.rows:
        assert row.values.keys() == QUANTITIES.keys() - set(MEASURED_ONLY)
        for name, value in row.values.items():
            assert value.low is not None and value.high is not None, name
            assert value.low <= value.value * (1 + 1e-12) and value.value * (1 - 1e-12) <= value.high, name
    assert sum(table.rows[0].values[name].value for name in CEILING_SHARES) == pytest.approx(1.0)


def test_text_and_papers_show_the_table(table: Table) -> None:
    lines = [line for line in ranking_report(entries()).splitlines() if re.match(r"\d", line)]
    pages = markdown(table).splitlines()[2:6], [line for line in latex(table).splitlines() if "&" in line][1:]
    for index, row in enumerate(table.rows):
        assert f" {row.drafter_name} " in lines[index]
        for name in NAMES:
            text = shown(table, name)[index]
            if name != "ceiling_share":
                assert f" {text} " in lines[index]
            assert text.replace("x", "×") in pages[0][index]
            assert text.replace("x", r"$\times$").replace("%", r"\%") in pages[1][index]
        mean = row.values["speedup_mean"]
        for line in (lines[index], pages[0][index], pages[1][index]):
            assert f"{mean.low:.2f} to {mean.high:.2f}" in line
    assert set(COLUMNS) == set(NAMES)


def test_files_hold_the_table_and_give_it_back(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "ranking.json"
    path.write_text(ranking_json(entries()))
    (again,) = read_table_file(path)
    rows = json.loads(path.read_text())["engines"][0]["rows"]
    *lines, plain = csv.DictReader(io.StringIO(ranking_csv(entries())))
    assert (plain["drafter_name"], plain["speedup_mean"], plain["rank"]) == ("plain", "1.0", "")
    for line, said, read, row in zip(lines, rows, again.rows, table.rows, strict=True):
        assert (line["drafter_name"], read.drafter_name, read.rank) == (row.drafter_name, row.drafter_name, row.rank)
        assert (read.num_questions, read.standing) == (row.num_questions, row.standing)
        for name in (*NAMES, "draft_ms", "verify_ms", "total_ms"):
            value, key = row.values[name], QUANTITIES[name].key
            assert float(line[name]) == said[name] == read.values[name].value == value.value
            for end in ("low", "high"):
                assert float(line[f"{key}_{end}"]) == said[f"{key}_{end}"] == getattr(read.values[name], end)
                assert said[f"{key}_{end}"] == pytest.approx(getattr(value, end), rel=1e-8)
        for name in ("baseline_ms", *CEILING_SHARES):
            assert read.values[name].value == pytest.approx(row.values[name].value)


def test_a_loss_of_nothing_but_rounding_is_read_as_none(tmp_path: Path) -> None:
    """Sums of differences of times fall below 0 by a last digit where the clairvoyant has nothing to gain."""
    path, document = tmp_path / "ranking.json", json.loads(ranking_json(entries()))
    row = document["engines"][0]["rows"][0]
    row |= {"under_ms": -5.7e-14, "under_share": -1e-17}
    path.write_text(json.dumps(document))
    assert read_table_file(path)[0].rows[0].values["under_share"].value == 0
    row["under_ms"] = -0.1
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"under_ms is -0\.1, and not at least 0"):
        read_table_file(path)


def test_the_report_holds_the_table(table: Table) -> None:
    data = report_data([make_plain()], entries(), [])["ranking"]
    (engine,) = data["engines"]
    assert [row["drafter_name"] for row in engine["rows"]] == [row.drafter_name for row in table.rows]
    for name in NAMES:
        assert [row[name] for row in engine["rows"]] == [row.values[name].value for row in table.rows]


def test_figures_draw_the_table(table: Table) -> None:
    (axes,) = pareto.figure([table]).axes
    bars = [one for one in axes.containers if isinstance(one, ErrorbarContainer)]
    drawn = {place for one in bars for place in zip(*one.lines[0].get_data(), strict=True)}
    assert drawn == {tuple(row.values[name].value for name in (pareto.X, pareto.Y)) for row in table.rows}
    (axes,) = oracle_gap.figure([table]).axes
    shares = sorted((row.values["ceiling_share"].value for row in table.rows), reverse=True)
    assert [bar.get_width() for bar in axes.containers[0]] == shares
    (axes,) = latency_breakdown_by_model.figure([table]).axes
    assert axes.containers[1][0].get_width() == table.rows[0].values["draft_ms"].value / table.num_paired / 1e3
    speed, _ = SWEEP.figure([table], []).axes
    lengths = {row.spec.draft_len: row.values["speedup_mean"].value for row in table.rows if row.spec in STATIC_AR}
    assert dict(speed.lines[0].get_xydata().tolist()) == lengths


def test_first_windows_and_rules_are_told_apart_in_figures() -> None:
    specs = FailFast(0.05, 0.45, 60, 10), FailFast(0.05, 0.45, 60, 10, 9), FailFast(0.05, 0.45, 60, 10, 9, "strict")
    places = {pareto.X: Value(1.0), pareto.Y: Value(2.0)}
    row = table_of(entries(), "E").rows[0]
    rows = [replace(row, drafter_name=spec.name, values=row.values | places) for spec in specs]
    (axes,) = pareto.figure([replace(table_of(entries(), "E"), rows=rows)]).axes
    names = [text.get_text() for text in axes.texts if "×" not in text.get_text()]
    assert names == ["FailFast τ 0.45, Nₘₐₓ 60, N 10", "w9", "w9 strict"]


STATIC_AR = (ArStatic(4), ArStatic(8))

# ---- one look a drafter ----------------------------------------------------------------------------------------------


def drafters() -> st.SearchStrategy[Spec]:
    share, length = st.integers(1, 20).map(lambda n: n / 20), st.integers(1, 64)
    return st.one_of(
        st.just(Plain()),
        st.builds(ArStatic, length),
        st.builds(ArDynamic, share, length, st.integers(1, 12)),
        st.builds(DllmStatic, share, length),
        st.builds(FailFast, share, share, length, st.integers(1, 12)),
        st.builds(CostAware, share, length, st.sampled_from(["Qwen@P", "bundled@P"])),
    )


@given(drafters(), drafters())
def test_two_drafters_never_look_alike(one: Spec, other: Spec) -> None:
    assert (palette.look(one) == palette.look(other)) == (one == other)


def test_the_published_sweeps_can_be_told_apart() -> None:
    assert len({palette.look(spec) for spec in paper()}) == len(paper())
    assert len({palette.look_of(name) for name in ("eagle3_vllm", "eagle3_sglang", "ar_None_sf_8")}) == 3


@given(st.sampled_from([kind for kind in kinds().values() if kind is not Plain]), st.integers(1, 100))
def test_longer_drafts_are_darker(kind: type[Spec], length: int) -> None:
    shorter, longer = (palette.shaded(kind.hue, one) for one in (length, 2 * length + 4))
    assert sum(bytes.fromhex(longer[1:])) < sum(bytes.fromhex(shorter[1:]))


def test_a_drafter_looks_the_same_in_figures_and_in_the_report(table: Table) -> None:
    names = [row.drafter_name for row in table.rows]
    expected = {name: palette.look_of(name).colour.lower() for name in names}
    (axes,) = pareto.figure([table]).axes
    marks = [to_hex(colour) for one in axes.collections if one.get_offsets().size for colour in one.get_facecolors()]
    assert set(expected.values()) <= set(marks)
    records = [make_record(0, name) for name in names]
    lines = lengths_figure({record.drafter_name: [record] for record in records}).axes[0].lines
    assert {str(line.get_label()): to_hex(line.get_color()) for line in lines} == {
        palette.label_of(name): colour for name, colour in expected.items()
    }
    (axes,) = latency_breakdown_by_model.figure([table]).axes
    bars = [to_hex(one[0].get_facecolor()) for one in axes.containers if one.get_label() == "verifying"]
    assert bars == list(expected.values())
    data = report_data(records, entries(), [])
    page = report_html(records, entries(), reader())
    for one in data["drafters"]:
        assert looks(data)[one["look"]] == palette.look_of(one["name"])
        assert f".mark-{one['look']} {{ fill: {palette.look_of(one['name']).colour}; }}" in page
        assert data["families"][one["family"]]["marker"] == palette.look_of(one["name"]).marker
