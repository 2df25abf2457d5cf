"""What trees cost beside a pass: a profile's field, read, priced by and refused where it makes no sense."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from test_latency import PLAIN_JSON, make_record, make_round

from specdec.drafters.families import parse_name
from specdec.errors import UserError
from specdec.latency.pricing import price
from specdec.latency.profile import LatencyProfile, load_profile, verification_ms
from specdec.records.record import Record
from specdec.traces.calibration import tree_costs

FAMILIES = {"family_pass_ms": {"dflash": 2.0, "eagle3": 0.5}}
TREES = {"big": {"round_ms": {"4": 14.0, "8": 22.0}, "pass_ms": {"dflash": {"4": 3.0, "8": 5.0}}}}


def loaded(folder: Path, **more: object) -> LatencyProfile:
    (folder / "p.json").write_text(json.dumps({**PLAIN_JSON, **FAMILIES, **more}))
    return load_profile(folder / "p.json")


def drafted(drafter: str, *lengths: int) -> Record:
    record = make_record([make_round(length, 0, passes=2 * (length > 0)) for length in lengths])
    return dataclasses.replace(record, identity=dataclasses.replace(record.identity, drafter=drafter))


def test_trees_are_priced_by_it_and_drafts_in_a_row_are_not(tmp_path: Path) -> None:
    """Also a tree that does not branch; an empty draft is one token of the target."""
    profile, plain = loaded(tmp_path, trees=TREES), loaded(tmp_path)
    tree, row = drafted("dflash_tree_8", 4, 6, 0), drafted("dflash_sf_8", 4, 6, 0)
    assert price(tree, profile, "big").draft_ms == pytest.approx(2 * 3.0 + 2 * 4.0)
    assert price(tree, profile, "big").verify_ms == pytest.approx(14.0 + 18.0 + 10.0)
    assert price(row, profile, "big") == price(row, plain, "big") == price(tree, plain, "big")


def test_between_its_points_a_tree_has_the_steps_of_verifications(tmp_path: Path) -> None:
    """A tree that fills a pass costs no more than one of a node more, for which the pass is padded up."""
    steps = {"verify_ms": {"big": {"1": 10.0, "4": 10.0, "5": 14.0, "8": 14.0, "9": 18.0}}}
    profile = loaded(tmp_path, **steps, trees={"big": {"round_ms": {"4": 15.0, "8": 19.5}, "pass_ms": {}}})
    rounds_ms = [profile.tree_ms("dflash", "big", nodes)[1] for nodes in (1, 3, 4, 6, 7, 8, 30)]
    assert rounds_ms == pytest.approx([11.0, 11.0, 15.0, 15.25, 15.375, 19.5, 19.5])


def test_what_it_does_not_say_costs_as_much_as_in_a_row(tmp_path: Path) -> None:
    profile = loaded(tmp_path, trees=TREES)
    other = drafted("eagle3_tree_3_2_8", 4)
    assert price(other, profile, "big").draft_ms == pytest.approx(2 * 0.5)
    assert price(other, profile, "big").verify_ms == pytest.approx(14.0)
    cheap = loaded(tmp_path, trees={"big": {"round_ms": {"1": 1.0}, "pass_ms": {}}})
    assert price(other, cheap, "big") == price(other, loaded(tmp_path), "big")


def test_of_a_hybrid_what_its_last_part_drafts_is_a_tree_also_where_it_does_not_branch(tmp_path: Path) -> None:
    profile, hybrid = loaded(tmp_path, trees=TREES), "lookup_3_sf_10_else_dflash_tree_8"
    rounds = [make_round(4, 0, passes=2), make_round(4, 0, passes=0)]
    record = dataclasses.replace(drafted(hybrid), rounds=rounds)
    assert price(record, profile, "big").draft_ms == pytest.approx(2 * 3.0)
    assert price(record, profile, "big").verify_ms == pytest.approx(14.0 + verification_ms(profile, "big", 5))


def test_a_tree_of_the_text_is_verified_as_one_also_where_it_does_not_branch(tmp_path: Path) -> None:
    profile, row = loaded(tmp_path, trees=TREES), verification_ms(loaded(tmp_path), "big", 5)
    for drafter, verify_ms in (("lookup_3_tree_8", 14.0), ("lookup_3_sf_8", row)):
        record = dataclasses.replace(drafted(drafter), rounds=[make_round(4, 0, passes=0)])
        assert price(record, profile, "big").verify_ms == pytest.approx(verify_ms), drafter


def test_trees_by_cost_reckon_with_it(tmp_path: Path) -> None:
    """Where it is not there, exactly as before."""
    spec = parse_name("dflash_tree_ca_8_big@here")
    costs, before = (tree_costs(spec, [loaded(tmp_path, **more)]) for more in ({"trees": TREES}, {}))
    assert costs is not None and before is not None
    assert costs.pass_ms == 3.0 and costs.verify_ms == pytest.approx([10, 11, 12, 13, 14, 16.5, 19, 21.5, 24])
    assert (before.pass_ms, before.verify_ms[8]) == (2.0, 18.0)


@pytest.mark.parametrize(
    ("trees", "message"),
    [
        ({"small": TREES["big"]}, r"trees\['small'\] is not round_ms and pass_ms of a target"),
        ({"big": {"round_ms": {"4": 1.0}}}, r"trees\['big'\] is not round_ms and pass_ms"),
        ({"big": {"round_ms": {}, "pass_ms": {}}}, r"trees\['big'\]\['round_ms'\] is empty"),
        ({"big": {"round_ms": {"0": 1.0}, "pass_ms": {}}}, "the key '0'"),
        (
            {"big": {"round_ms": {"4": 1.0}, "pass_ms": {"dflsh": {"4": 1.0}}}},
            "'dflsh', which has no entry in family_p",
        ),
        ({"big": {"round_ms": {"4": 1.0}, "pass_ms": {"dflash": {"4": -1}}}}, r"\['dflash'\]\['4'\] must be a pos"),
    ],
)
def test_what_makes_no_sense_is_refused(trees: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        loaded(tmp_path, trees=trees)
