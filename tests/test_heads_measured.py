"""Heads measured: rows are the ranking's, and a tree is set against the fastest draft in a row of its model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from samples import make_plain, make_record, make_round

from experiments import heads_measured
from experiments.heads_measured import trees_over_rows
from scripts import cells, heads_by_clock, tree_rules
from specdec.records.record import identity_path, save_record

QUESTIONS = range(6)
MS = {"dflash_sf_4": 20.0, "dflash_sf_8": 30.0, "dflash_tree_7": 10.0, "ar_None_sf_3": 40.0}


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A folder of one dtype with two runs; in the second a question of a drafter is missing."""
    for run, drafters in (("all", MS), ("jetspec", {"dflash_sf_4": 10.0})):
        for question in QUESTIONS:
            made = [
                make_record(question, name, [make_round(3, draft_ms=ms - 10), make_round(6, (8,), 1, draft_ms=ms - 10)])
                for name, ms in drafters.items()
                if (run, question) != ("jetspec", 5)
            ]
            for record in [make_plain(question), *made]:
                save_record(record, identity_path(tmp_path / "float32" / run, record.identity))
    return tmp_path / "float32"


def measured(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert heads_measured.main(list(map(str, arguments))) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_runs_are_ranked_and_trees_are_told_over_the_fastest_draft_in_a_row_of_their_model(live, capsys) -> None:
    runs = measured(capsys, live)["folders"]["float32"]
    rows = {row["drafter"]: row for row in runs["all"]["rows"]["all"]}
    # 5 tokens in two rounds; plain decoding takes 10 ms a token.
    assert {name: row["speedup_mean"] for name, row in rows.items()} == {
        name: pytest.approx(5 * 10 / (2 * ms), rel=1e-4) for name, ms in MS.items()
    }
    (tree,) = runs["all"]["trees"]
    assert (tree["tree"], tree["in_a_row"], tree["over"]) == ("dflash_tree_7", "dflash_sf_4", pytest.approx(2.0))
    assert runs["all"]["plain"] == {"num_output_tokens": 30, "ms_per_token": 10.0}
    assert runs["jetspec"]["rows"]["gsm8k"][0]["num_questions"] == 5 and runs["jetspec"]["trees"] == []


def test_the_same_rounds_are_priced_by_a_profile_that_is_asked_for(live, tmp_path, capsys) -> None:
    profile = {"name": "p", "draft_pass_ms": 4.0, "target_ms_per_token": {"T": 50.0}, "provenance": {}}
    (tmp_path / "p.json").write_text(json.dumps(profile | {"family_pass_ms": {"dflash": 2.0}}))
    flags = "--latency_profile", tmp_path / "p.json", "--latency_target", "T"
    priced = measured(capsys, live, *flags)["folders"]["float32"]["all"]
    assert priced["plain"] == {"num_output_tokens": 30, "ms_per_token": 50.0}
    assert {name: ms["verify"] for name, ms in priced["ms_a_round"].items()} == dict.fromkeys(MS, 50.0)
    (tree,), passes = priced["trees"], priced["ms_a_round"]
    row, chain = (sum(passes[tree[name]].values()) for name in ("tree", "in_a_row"))
    assert tree["over"] == pytest.approx(chain / row, rel=1e-4) and passes["ar_None_sf_3"]["draft"] == 2 * row - 100
    clock = measured(capsys, live)["folders"]["float32"]["all"]
    assert sum(clock["ms_a_round"]["dflash_tree_7"].values()) == pytest.approx(10.0)
    assert heads_measured.main([str(live), *map(str, flags[2:])]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_holds_no_run_is_refused_in_one_line(live, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    for folders in ([tmp_path / "no"], [tmp_path / "empty"], [live, live]):
        assert heads_measured.main(list(map(str, folders))) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_the_page_s_table_ranks_all_runs_and_gives_heads_their_names(live, capsys, monkeypatch) -> None:
    document = measured(capsys, live)
    for run in document["folders"]["float32"].values():
        run["losslessness"] = {"exact": 23, "tie": 1}
    ranked = heads_measured.side_by_side(heads_measured.runs_in(live, heads_measured.Pricing()))
    monkeypatch.setattr(heads_by_clock, "result", lambda name: document | {"side_by_side": {"float32": ranked}})
    head, _, *rows, _, (said,) = [
        line.strip("| ").split(" | ") for line in heads_by_clock.by_clock("float32").splitlines()
    ]
    assert head[5:7] == ["speedup, GSM8K", "together (95 % interval)"]
    assert said.startswith("Questions: GSM8K 5. From plain decoding part 2 of 48 outputs")
    found = {tuple(row[:2]): row[2:] for row in rows}
    assert set(found) == {
        ("DFlash", "`dflash_sf_4`"),
        ("DFlash", "`dflash_sf_8`"),
        ("DFlash, a tree", "`dflash_tree_7`"),
        ("AR", "`ar_None_sf_3`"),
        ("JetSpec", "`dflash_sf_4`"),
    }
    assert found["JetSpec", "`dflash_sf_4`"][:5] == ["2.50", "0.00", "10.00", "2.50x", "2.50x (2.50 to 2.50)"]
    untuned = [line.strip("| ").split(" | ") for line in heads_by_clock.untuned().splitlines()]
    assert untuned[0][-1] == "speedup, float32" and ["JetSpec", "`dflash_sf_4`", "5", "2.50"] in [
        row[:4] for row in untuned
    ]


def test_trees_by_the_clock_have_a_row_each_and_those_without_times_say_so(live, capsys, monkeypatch) -> None:
    run = measured(capsys, live)["folders"]["float32"]["all"] | {"losslessness": {"exact": 23, "tie": 1}}
    priced = run | {"ms_a_round": {name: {"draft": 2.0, "verify": 18.0} for name in MS}}
    clocks = {"folders": {"trees_bundled": {"all": run}, "bfloat16": {}}}
    modelled = {"folders": {"trees_bundled": {"all": priced}, "bfloat16": {"jetspec": priced}}}
    monkeypatch.setattr(tree_rules, "result", lambda name: modelled if name == tree_rules.AS_IF_32B else clocks)
    _, _, bundled, heads, _, last = tree_rules.by_clock().splitlines()
    names = "`dflash_tree_7` | `dflash_sf_4` | 2.50 and 2.50 | 2.00 (2.00 to 2.00) | -"
    assert heads == f"| SmolLM2-135M | JetSpec | {names} | - | - | - | 6 and 0 |"
    # By the clock a round of the tree takes 10 ms and not 20: 20 ms as if for 32B become 10, and twice becomes 4 times.
    assert bundled == f"| bundled | DFlash | {names} | 4.00 | 2.00 (2.00 to 2.00) | -10.0 ms | 6 and 6 |"
    assert last.endswith("bundled 1 of 24, JetSpec 1 of 24.")
    with pytest.raises(ValueError, match="elsewhere"):
        cells.parted({"exact": 3, "tie": 1, "bug": 1})


def test_what_the_page_says_of_trees_holds_of_every_stored_tree() -> None:
    """Each gains as if for 32B, also where its round is charged what the clock found, those by a rule also over a fixed
    number of nodes; each loses by the clock."""
    _, _, *rows = [line.strip("| ").split(" | ") for line in tree_rules.by_clock().splitlines() if line[:1] == "|"]
    gains, ruled, charged, losses = ([row[place].split()[0] for row in rows] for place in (5, 6, 7, 8))
    assert len(rows) == 10 and all(float(one) > 1 for one in gains)
    assert all(one == "-" or float(one) > 1 for one in [*charged, *ruled]) and ruled.count("-") < len(rows)
    assert all(one == "-" or float(one) < 1 for one in losses)


def test_a_tree_by_a_rule_is_told_over_the_best_of_a_fixed_number() -> None:
    ms = {
        "dflash_sf_4": 6.0,
        "dflash_tree_7": 4.0,
        "dflash_tree_15": 5.0,
        "dflash_tree_df_0.02_7": 2.0,
        "eagle3_sf_4": 1.0,
    }
    fixed, _, ruled = trees_over_rows({name: np.full(6, one) for name, one in ms.items()})
    assert "fixed" not in fixed and (ruled["fixed"], ruled["over_fixed"], ruled["over"]) == ("dflash_tree_7", 2, 3)


def test_runs_are_ranked_side_by_side_over_the_questions_that_all_have(live) -> None:
    rows = heads_measured.side_by_side(heads_measured.runs_in(live, heads_measured.Pricing()))["all"]
    assert [row["drafter"] for row in rows][:2] == ["all: dflash_tree_7", "jetspec: dflash_sf_4"]
    assert {row["num_questions"] for row in rows} == {5} and len(rows) == len(MS) + 1
    alone = heads_measured.run_of(*heads_measured.entries_of(live / "jetspec", heads_measured.Pricing()))["rows"][
        "all"
    ][0]
    beside = next(row for row in rows if row["drafter"] == "jetspec: dflash_sf_4")
    assert beside["speedup_mean"] == pytest.approx(alone["speedup_mean"])
    assert rows[0]["to_best_p_holm"] is None and all(0 <= row["to_best_p_holm"] <= 1 for row in rows[1:])
