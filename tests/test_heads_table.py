"""Drafters head to head: settings are the best on the tuning questions, rows are the ranking's on the others, and what
cannot be compared is refused in one line.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from made_up import made_up_trace

from experiments import heads_table
from experiments.heads_grids import BY_COST, RULE, STATIC, grids
from plotting import head_to_head
from scripts import head_to_head as head_to_head_tables
from scripts.head_to_head_said import BIG, SMALL, said
from specdec.decoding.chains import Chain, Chains
from specdec.errors import UserError
from specdec.latency.pricing import Pricing, price
from specdec.latency.profile import load_profile
from specdec.ranking.entries import entry_of
from specdec.ranking.table import table_of
from specdec.traces.replay import replay
from specdec.traces.trace import Trace, save_trace, trace_path

PROFILE = {"name": "P", "draft_pass_ms": 3.0, "provenance": {}, "family_pass_ms": {"dflash": 2.0}}
PROFILE |= {"target_ms_per_token": {"big": 40.0, "small": 5.0}, "verify_ms": {"small": {"1": 5.0, "9": 9.0}}}
POLICIES = (STATIC, RULE, BY_COST)
TUNING, HELD_OUT = range(3), range(10, 16)
Measure = Callable[..., dict]


def trace_of(question: int, drafter: str) -> Trace:
    """Of a drafter that writes a token a pass, or a block in one ("block", and "long", which guesses better)."""
    trace = made_up_trace(question, num_tokens=24, chain_len=6, skill=0.9 if drafter == "long" else 0.7)
    if drafter == "ar":
        return replace(trace, chains={"ar": trace.chains["ar"]})
    chains = [
        Chain(one.tokens, one.confidences, [1] * len(one.tokens), [0], [0], []) for one in trace.chains["ar"].chains
    ]
    return replace(trace, chains={"dflash": Chains.pack("dflash", {"drafter_sha256": "d"}, 6, chains)})


def record(folder: Path, drafter: str, questions: range) -> None:
    for question in questions:
        trace = trace_of(question, drafter)
        save_trace(trace, trace_path(folder / drafter, trace.identity))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    for drafter in ("ar", "block", "long"):
        record(folder / "tuning", drafter, TUNING)
        record(folder / "held_out", drafter, HELD_OUT)
    (folder / "P.json").write_text(json.dumps(PROFILE))
    training = folder / "work" / "block" / "dflash" / "training.json"
    training.parent.mkdir(parents=True)
    training.write_text(json.dumps({"family": "dflash", "seconds": 7.5, "losses": [1.0]}))
    return folder


@pytest.fixture(scope="module")
def table(home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        found: list[dict] = []
        patch.setattr("profiling.common.print_json", lambda document, *device: found.append(document))
        assert heads_table.main(line(home, "--longer", "long", "--work_dir", str(home / "work"))) == 0
    return json.loads(json.dumps(found.pop(), allow_nan=False))


def line(home: Path, *more: str) -> list[str]:
    where = [str(home / "tuning"), str(home / "held_out"), "--latency_profile", str(home / "P.json")]
    return [*where, "--latency_target", "big", "small", *more]


@pytest.mark.parametrize("target", ["big", "small"])
@pytest.mark.parametrize(("drafter", "chains"), [("ar", "ar"), ("block", "dflash")])
def test_the_best_on_the_tuning_questions_is_chosen(
    home: Path, table: dict, target: str, drafter: str, chains: str
) -> None:
    profile, traces = load_profile(home / "P.json"), [trace_of(question, drafter) for question in TUNING]
    chosen = table["targets"][target]["chosen"][drafter]
    for policy, specs in grids(chains, 6).items():
        times = {spec.name: sum(price(replay(one, spec), profile, target).total_ms for one in traces) for spec in specs}
        assert chosen[policy]["tuning_ms"] == pytest.approx(min(times.values()), rel=1e-4)
        assert times[chosen[policy]["setting"]] == min(times.values())
    policies = {key: one["tuning_ms"] for key, one in chosen.items() if key != "best"}
    assert policies[chosen["best"]] == min(policies.values())
    assert (BY_COST in policies) == (drafter == "block")  # an AR drafter has no such policy


def test_rows_are_the_rankings_on_the_other_questions(home: Path, table: dict) -> None:
    pricing, entries = Pricing((load_profile(home / "P.json"),), "big"), []
    one = table["targets"]["big"]
    for drafter in ("ar", "block"):
        name = one["chosen"][drafter][STATIC]["setting"]
        for question in HELD_OUT:
            trace = trace_of(question, drafter)
            spec = next(
                spec for specs in grids(next(iter(trace.chains)), 6).values() for spec in specs if spec.name == name
            )
            entries.append(replace(entry_of(replay(trace, spec), pricing), drafter_name=f"{drafter}: {STATIC}"))
    expected = {row.drafter_name: row for row in table_of(entries, "P as if big").rows}
    found = {row["drafter"]: row for row in one["rankings"]["alike"]["policies"]["all"]}
    for name, row in expected.items():
        assert found[name]["speedup_mean"] == pytest.approx(row.values["speedup_mean"].value, rel=1e-4)
        assert found[name]["mean_low"] == pytest.approx(row.values["speedup_mean"].low, rel=1e-4)
        assert found[name]["num_questions"] == len(HELD_OUT)
    for row in found.values():
        assert row["acceptance_len"] == pytest.approx(row["speedup_ratio"] * row["round_cost"], rel=1e-4)
        assert 0 < row["ceiling_share"] <= 1


def test_drafters_with_more_training_are_ranked_apart_from_those_that_were_trained_alike(table: dict) -> None:
    rankings = table["targets"]["small"]["rankings"]
    assert {row["drafter"] for row in rankings["alike"]["drafters"]["all"]} == {"ar", "block"}
    assert {row["drafter"] for row in rankings["all"]["drafters"]["all"]} == {"ar", "block", "long"}
    assert table["trained"] == {"block": {"family": "dflash", "seconds": 7.5}}
    assert (
        table["texts"] == {"questions": 6, "compared": 12, "equal": 12}
        and table["tuned_on"] == {"bundled": 3}
        and table["reported_on"] == {"bundled": 6}
    )


def test_every_length_is_told(home: Path, table: dict) -> None:
    lengths = table["targets"]["big"]["lengths"]["ar"]
    assert [one["draft_len"] for one in lengths] == list(range(1, 7))
    assert [one["round_cost"] for one in lengths] == sorted(one["round_cost"] for one in lengths)


@pytest.mark.slow
def test_several_processes_give_the_same(home: Path, table: dict, capsys: pytest.CaptureFixture[str]) -> None:
    assert heads_table.main(line(home, "--longer", "long", "--workers", "2")) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["targets"] == table["targets"]


def test_what_cannot_be_compared_is_one_line(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*more: str) -> str:
        assert heads_table.main(list(more)) == 2
        (said,) = capsys.readouterr().err.splitlines()
        return said

    assert "--longer nobody: no drafter" in refused(*line(home, "--longer", "nobody"))
    assert "--longer long: no drafter" in refused(*line(home, "--only", "ar", "block", "--longer", "long"))
    assert "--only nobody: no folder" in refused(*line(home, "--only", "nobody"))
    record(tmp_path / "tuning", "ar", TUNING)
    record(tmp_path / "held_out", "ar", HELD_OUT)
    where = [str(tmp_path / "tuning"), str(tmp_path / "held_out")]
    rest = ["--latency_profile", str(home / "P.json"), "--latency_target", "big"]
    record(tmp_path / "held_out", "block", HELD_OUT[:5])
    assert "block is in one of" in refused(*where, *rest)
    record(tmp_path / "tuning", "block", TUNING[:2])
    assert "question 2 of bundled was not recorded for all of ar, block" in refused(*where, *rest)
    record(tmp_path / "tuning", "block", TUNING)
    assert "question 15 of bundled was not recorded for all of ar, block" in refused(*where, *rest)
    assert heads_table.main([*where, *rest, "--allow_unequal"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["reported_on"] == {"bundled": 5}
    record(tmp_path / "held_out", "block", HELD_OUT)
    unpriced = tmp_path / "Q.json"
    unpriced.write_text(json.dumps({**PROFILE, "name": "Q", "family_pass_ms": {"eagle3": 1.0}}))
    assert "does not say what a pass of dflash costs" in refused(*where, "--latency_profile", str(unpriced), *rest[2:])
    assert "no target 'huge'" in refused(*where, *rest[:2], "--latency_target", "huge")
    assert "is not a folder" in refused(str(tmp_path / "nowhere"), where[1], *rest)


def test_a_trace_of_no_drafter_is_refused(home: Path, tmp_path: Path) -> None:
    for where in ("tuning", "held_out"):
        trace = replace(trace_of(0, "ar"), chains={})
        save_trace(trace, trace_path(tmp_path / where / "x", trace.identity))
    flags = [str(tmp_path / "tuning"), str(tmp_path / "held_out"), *line(home)[2:]]
    assert heads_table.main(flags) == 2


def test_the_grid_keeps_within_what_was_recorded() -> None:
    assert grids("lookup_3", 9) == {}
    assert [spec.name for spec in grids("ar", 2)[STATIC]] == ["ar_None_sf_1", "ar_None_sf_2"]
    assert grids("dllm_0.05", 20)[RULE] == [] and len(grids("dllm_0.05", 71)[RULE]) > 70
    assert all(spec.chain_len({}) <= 71 for specs in grids("dllm_0.05", 71).values() for spec in specs)


def test_the_figure_refuses_what_is_no_comparison(home: Path, table: dict, tmp_path: Path) -> None:
    (tmp_path / "heads.json").write_text(json.dumps(table))
    assert head_to_head.main([str(tmp_path / "heads.json"), "--out", str(tmp_path / "x.png")]) == 0
    for other in ("P.json", "work/block/dflash/training.json"):
        assert head_to_head.main([str(home / other), "--out", str(tmp_path / "y.png")]) == 2
    with pytest.raises(UserError, match="at most"):
        panel = {"lines": dict.fromkeys("abcdefgh", ()), "points": {}, "note": ""}
        head_to_head.figure({"big": panel})


# ---- in words and tables ---------------------------------------------------------------------------------------------


def made_up_document(standing: str) -> dict:
    """Two drafters as if for two targets; the second's `standing` against the first."""
    names, groups = ("dllm", "eagle3"), {}
    policies = [{"drafter": f"{name}: {policy}", "speedup_mean": 2.0} for name in names for policy in POLICIES]
    for target, order in ((BIG, names[::-1]), (SMALL, names)):
        rows = []
        for place, name in enumerate(order):
            ends = (None, None, None) if place == 0 else (-0.5, -0.75, -0.25)
            row = {"drafter": name, "speedup_mean": 3.0 - place, "mean_low": 2.5 - place, "mean_high": 3.5 - place}
            row |= dict(zip(("to_best_value", "to_best_low", "to_best_high"), ends, strict=True))
            row |= {"num_questions": 7, "standing": standing if place else "best", "round_cost": 1.5 + place}
            row |= {"to_best_p_holm": None if place == 0 else 0.03, "acceptance_len": 4.0 + place, "ceiling_share": 0.8}
            rows.append(row)
        chosen = {name: {"best": STATIC, STATIC: {"setting": f"{name}_sf_4@P"}} for name in names}
        scopes = {"gsm8k": rows, "all": rows}
        rankings = {"alike": {"drafters": scopes, "policies": dict.fromkeys(scopes, policies)}}
        groups[target] = {"rankings": rankings, "chosen": chosen}
    profile = {"family_pass_ms": {"eagle3": {BIG: 2.0}}, "target_ms_per_token": {BIG: 40.0}}
    profile["provenance"] = {"device_name": "a GPU"}
    return {"targets": groups, "groups": {"alike": list(names)}, "profile": profile}


@pytest.mark.parametrize(
    ("standing", "words"),
    [("behind", ", behind it"), ("level", ", level with it"), ("undecided", ", not told from")],
)
def test_sentences_are_no_stronger_than_the_standings(standing: str, words: str) -> None:
    document = made_up_document(standing)
    first, data_sets, failfast, rounds, smaller, measured = said(document, document).splitlines()
    assert "**EAGLE-3** is first as if for 32B over all 7 questions: 3.00x (2.50 to 3.50)" in first
    assert f"{words}" in first and "-0.50x, -0.75 to -0.25, corrected p 0.0300" in first
    assert ("(3.00x, clearly)" in data_sets) == (standing == "behind")
    assert (
        f"Block diffusion is second of 2, 0.50x behind the first ({standing.replace('behind', 'clearly')})" in failfast
    )
    assert "would choose block diffusion: 5.00 tokens a round for 2.50 target passes, where EAGLE-3 has 4.00" in rounds
    assert smaller.endswith("block diffusion 3.00x, EAGLE-3 2.00x.")
    assert "takes 5.0 % of the target's" in measured and f"(1.50 to 2.50){words}" in measured


def test_a_row_of_the_table_has_each_data_set_and_what_chose_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_to_head_tables, "result", lambda name: made_up_document("behind"))
    head, _, first, second = head_to_head_tables.drafters("any", BIG, "alike").splitlines()
    assert "speedup, GSM8K" in head and "MATH" not in head
    assert first.startswith("| EAGLE-3 | static: `eagle3_sf_4` | 4.00 | 1.50 | 3.00x |") and "| best |" in first
    assert "| behind (p 0.0300) | 80 % |" in second
    assert head_to_head_tables.policies("any").splitlines()[2] == "| block diffusion |" + " 2.00x |" * 6
