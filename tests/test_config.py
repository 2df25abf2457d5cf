"""The command line: strict, with every default in one place, and drafter names that say what they are."""

from __future__ import annotations

import re

import pytest

from specdec.commands.flags import all_flags, text
from specdec.commands.run import parse_args
from specdec.config import RunConfig
from specdec.drafters.ar import ArDynamic, ArStatic
from specdec.drafters.block_diffusion import CostAware, DllmStatic, FailFast
from specdec.drafters.families import asked_spec, drafter_word, kinds, parse_name
from specdec.drafters.plain import Plain
from specdec.errors import UserError
from specdec.questions.asked import known_dataset
from specdec.records.identity import current_name

DESIGN_NAMES = {
    "ar_None_sf_8": ArStatic(8),
    "ar_None_df_0.4_60_10": ArDynamic(0.4, 60, 10),
    "dllm_0.9_sf_8": DllmStatic(0.9, 8),
    "dllm_0.05_df_0.45_60_10": FailFast(0.05, 0.45, 60, 10),
    "dllm_0.05_df_0.45_60_10_w9": FailFast(0.05, 0.45, 60, 10, first_window=9),
    "dllm_0.05_df_0.45_60_10_strict": FailFast(0.05, 0.45, 60, 10, rule="strict"),
    "dllm_0.05_df_0.45_60_10_w9_strict": FailFast(0.05, 0.45, 60, 10, first_window=9, rule="strict"),
    "dllm_0.05_ca_60_Qwen2.5-7B-Instruct@vLLM_A6000": CostAware(0.05, 60, "Qwen2.5-7B-Instruct@vLLM_A6000"),
    "dllm_1.0_df_0.0_60_10": FailFast(1.0, 0.0, 60, 10),
    "plain": Plain(),
}


@pytest.mark.parametrize(("name", "spec"), DESIGN_NAMES.items())
def test_names_and_specs_are_inverse(name: str, spec: object) -> None:
    assert spec.name == name
    assert parse_name(name) == spec


def test_no_two_thresholds_share_a_name() -> None:
    names = [DllmStatic(threshold, 8).name for threshold in (0.3, 0.30000001, 0.29999999, 1.0, 0.0)]
    assert len(set(names)) == 5
    assert [parse_name(name).unmask_threshold for name in names] == [0.3, 0.30000001, 0.29999999, 1.0, 0.0]


@pytest.mark.parametrize("older", ["dllm_1_sf_8", "dllm_0_df_1_60_10_w9", "ar_None_df_1_60_10"])
def test_a_whole_threshold_has_a_decimal_in_its_name(older: str) -> None:
    """As the published program spells it; names without it, which this program once wrote, are read as the same."""
    now = current_name(older)
    assert now != older and parse_name(older).name == parse_name(now).name == now == current_name(now)
    assert DllmStatic(1, 8).name == "dllm_1.0_sf_8" and parse_name(now).label.count(".0") == 0


@pytest.mark.parametrize(
    "name",
    [
        *("", "dllm", "ar_8_sf_8", "ar_None_sf_x", "dllm_0.9_sf", "dllm_0.9_xf_8", "dllm_0.9_ca_8", "plain_w9"),
        *(f"dllm_0.05_df_0.45_60_10{end}" for end in ("_w", "_wide", "_loose", "_9", "_strict_w9", "_w9_w9", "_w9_")),
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="does not name a drafter"):
        parse_name(name)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ar_None_sf_0", "draft_len '0'"),
        ("dllm_1.5_sf_4", "unmask_threshold '1.5'"),
        ("dllm_0.05_df_nan_60_10", "tau 'nan'"),
        ("dllm_0.05_df_0.45_60_10_w0", "first_window '0'"),
        ("dflash_sf_-3", "draft_len '-3'"),
        ("dflash_tree_df_0.02_0", "tree_nodes '0'"),
        ("dflash_tree_pairs_1.02_8", "tree_floor '1.02'"),
        ("eagle3_tree_0_4_16", "tree_depth '0'"),
        ("suffix_0", "max_depth '0'"),
        ("suffix_64_tree_0", "tree_nodes '0'"),
        ("lookup_3_sf_10_else_ar_None_sf_0", "ar_None_sf_0: draft_len '0'"),
    ],
)
def test_a_name_asks_for_nothing_that_a_flag_would_refuse(name: str, wrong: str) -> None:
    with pytest.raises(UserError, match=re.escape(wrong)):
        asked_spec(name)
    assert parse_name(name).name == name  # records of it are read all the same


def test_no_flag_means_all_drafters_and_plain_decoding() -> None:
    assert parse_args([]) == RunConfig.of()
    assert parse_args([]).drafters.kinds == ("plain", "ar_sf", "ar_df", "dllm_sf", "failfast", "lookup")


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("--run_ar", ("plain", "ar_sf", "failfast")),
        ("--run_dllm_sf --ar_dynamic", ("plain", "ar_df", "dllm_sf", "failfast")),
        ("--baseline_sweep", ("plain", "ar_sf", "dllm_sf")),
        ("--baseline_sweep --run_ar", ("plain", "ar_sf")),
        ("--drafters failfast", ("failfast",)),
        ("--drafters dllm_sf plain", ("plain", "dllm_sf")),
    ],
)
def test_switches_choose_the_drafters(line: str, kinds: tuple[str, ...]) -> None:
    assert parse_args(line.split()).drafters.kinds == kinds


def test_drafters_are_asked_for_by_kind_or_by_name() -> None:
    """A name beside the kinds, with the settings that it says whatever the flags; nothing twice."""
    line = "--drafters lookup_3_sf_10 dllm_0.9_sf_4 plain lookup ar_None_sf_8 ar_None_sf_10 --spec_len 10 12"
    drafters = parse_args(line.split()).drafters
    assert drafters.kinds == ("plain", "ar_sf", "dllm_sf", "lookup") and drafters.swept_kinds == ("plain", "lookup")
    names = [spec.name for spec in drafters.specs()]
    assert names == ["plain", "ar_None_sf_8", "ar_None_sf_10", "dllm_0.9_sf_4", "lookup_3_sf_10", "lookup_3_sf_12"]
    assert [role.setting for role in drafters.roles] == ["ar_model_name", "dllm_dir"]


def test_the_bundled_target_alone_comes_with_heads() -> None:
    names = parse_args(["--drafters", "eagle3_df", "dflash_tree", "--eagle3_dir", "mine"]).model_names
    assert {role.setting: name for role, name in names.items()} == {
        "target_model_name": "bundled", "eagle3_dir": "mine", "dflash_dir": "bundled",
    }  # fmt: skip
    with pytest.raises(UserError, match="no EAGLE-3 head comes with the target: give --eagle3_dir FOLDER"):
        parse_args(["--target_model_name", "other", "--drafters", "eagle3_df"])


def test_several_values_sweep() -> None:
    line = "--spec_len 4 8 --drafter_thresholds 0.05 0.9 --sweep_lowconf_threshold 0.3 0.4"
    config = parse_args(line.split())  # noqa: SIM905
    specs = config.drafters.specs()
    names = [spec.name for spec in specs]
    assert len(names) == len(set(names)) == 1 + 2 + 2 + 4 + 4 + 2
    assert {"ar_None_sf_8", "dllm_0.9_sf_4", "dllm_0.05_df_0.3_60_10", "dllm_0.9_df_0.4_60_10"} <= set(names)
    assert all(spec.first_window == 10 for spec in specs if isinstance(spec, FailFast))


def test_lengths_in_any_order_are_the_same_drafters() -> None:
    """--spec_len is static lengths alone; its first length was FailFast's first window once."""
    ours, theirs = (parse_args(["--spec_len", *lengths]).drafters.specs() for lengths in ("484", "84"))
    assert len(ours) == len(set(ours)) == len(theirs) == 9 and set(ours) == set(theirs)
    assert [spec for spec in ours if isinstance(spec, FailFast)] == [FailFast(0.05, 0.45, 60, 10)]


SPELLINGS = {
    "draft_len": ("--draft_len 4 8", "--spec_len 4 8", (4, 8)),
    "unmask_threshold": ("--unmask_threshold 0.1 0.9", "--drafter_thresholds 0.1 0.9", (0.1, 0.9)),
    "tau": ("--tau 0.3", "--sweep_lowconf_threshold 0.3", (0.3,)),
    "max_draft_len": ("--max_draft_len 30 40", "--sweep_max_spec_len 30 40", (30, 40)),
    "draft_step": ("--draft_step 5", "--sweep_incr_len 5", (5,)),
    "first_window": ("--first_window 9 10", "--sweep_first_window 9 10", (9, 10)),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_published_spellings_and_settings_names_are_the_same_flags(name: str) -> None:
    *lines, value = SPELLINGS[name]
    ours, theirs = (parse_args(line.split()) for line in lines)
    assert ours == theirs == RunConfig.of(**{name: value}) != RunConfig.of()
    assert ours.drafters.options[name] == ours.settings()[name] == value
    assert ours.drafters.specs() == theirs.drafters.specs() != RunConfig.of().drafters.specs()


def test_every_name_is_read_back_and_no_two_drafters_share_one() -> None:
    """Of every kind, with neighbours in every setting that its flags have."""
    options = {
        **{"draft_len": (8, 9, 10), "unmask_threshold": (0.05, 0.5, 1.0), "tau": (0.0, 0.45, 0.450001)},
        **{"max_draft_len": (10, 60), "draft_step": (9, 10), "first_window": (1, 9, 10, 60)},
        "pricings": ("Qwen2.5-7B-Instruct@vLLM_A6000", "a_b@c_d_9", "w9@strict"),
    }
    found = {
        spec
        for kind in kinds().values()
        for rule in ("published", "strict")
        for spec in kind.sweep({**options, "failfast_rule": rule})
    }
    assert {type(spec) for spec in found} == set(kinds().values())
    assert len({spec.name for spec in found}) == len(found) > 300
    assert all(parse_name(spec.name) == spec for spec in found)


@pytest.mark.parametrize(
    "line",
    [
        "--no_such_flag",
        "--spec_le 3",
        "stray",
        "--drafter_thresholds 1.01",
        "--sweep_lowconf_threshold -0.1",
        "--drafter_thresholds nan",
        "--num_questions 0",
        "--max_new_tokens many",
        "--question_ids -1",
        "--dataset_name trivia",
        "--failfast_rule loose",
        "--drafters all",
        "--output_dir=",
        "--data_dir=",
    ],
)
def test_impossible_flags_are_one_line_and_status_2(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_args(line.split())
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--small_block_size 7", "small_block_size"),
        ("--drafters plain --run_ar", "exclude"),
        ("--read_pickle --dry_run", "dry_run"),
        ("--block_size 1 --small_block_size 1", "block_size"),
        ("--target_model_name smollm2 --drafters ar_sf", "--ar_model_name"),
        ("--target_model_name smollm2 --ar_model_name folder", "--dllm_dir"),
    ],
)
def test_contradictions_are_named(line: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_args(line.split())


def numeric_flags() -> list[str]:
    """Every flag of the program that reads numbers."""
    found = all_flags().values()
    texts = (text, known_dataset, drafter_word)
    return [name for group in found for name, flag in group.items() if flag.more.get("type", text) not in texts]


@pytest.mark.parametrize("value", ["x", "", "nan", "-1", "1e400"])
@pytest.mark.parametrize("name", numeric_flags())
def test_what_is_not_the_number_that_a_flag_wants_is_told_so(
    name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse_args([f"--{name}={value}"])
    error = capsys.readouterr().err
    wanted = (
        "(a positive integer|an index|a seed|a count|a probability|above 0 and at most|a temperature|a number of 0)"
    )
    assert re.search(f"--{name}: '{re.escape(value)}' is not {wanted}", error) and error.count("\n") == 1


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, 10**30])
def test_a_seed_is_any_number_and_what_no_record_could_hold_is_too_large(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse_args([f"--seed={seed}"]).questions.seed == seed
    for line in (f"--max_new_tokens={seed}", "--temperature=1e301"):
        with pytest.raises(SystemExit):
            parse_args([line])
        assert re.search("'[0-9e]+' is too large: no record could hold it", capsys.readouterr().err)
