"""The command line: strict, with every default in one place, and drafter names that say what they are."""

from __future__ import annotations

import pytest

from specdec.config import RunConfig, parse_args
from specdec.drafters.specs import ArDynamic, ArStatic, DllmStatic, FailFast, Plain, parse_drafter_name
from specdec.errors import UserError

DESIGN_NAMES = {
    "ar_None_sf_8": ArStatic(8),
    "ar_None_df_0.4_60_10": ArDynamic(0.4, 60, 10),
    "dllm_0.9_sf_8": DllmStatic(0.9, 8),
    "dllm_0.05_df_0.45_60_10": FailFast(0.05, 0.45, 60, 10),
    "plain": Plain(),
}


@pytest.mark.parametrize(("name", "spec"), DESIGN_NAMES.items())
def test_names_and_specs_are_inverse(name: str, spec: object) -> None:
    assert spec.name == name
    assert parse_drafter_name(name) == spec


def test_no_two_thresholds_share_a_name() -> None:
    names = [DllmStatic(threshold, 8).name for threshold in (0.3, 0.30000001, 0.29999999, 1.0, 0.0)]
    assert len(set(names)) == 5
    assert [parse_drafter_name(name).unmask_threshold for name in names] == [0.3, 0.30000001, 0.29999999, 1.0, 0.0]


@pytest.mark.parametrize("name", ["", "dllm", "ar_8_sf_8", "ar_None_sf_x", "dllm_0.9_sf", "dllm_0.9_xf_8"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no drafter"):
        parse_drafter_name(name)


def test_no_flag_means_all_four_drafters_and_plain_decoding() -> None:
    assert parse_args([]) == RunConfig()
    assert parse_args([]).kinds == ("plain", "ar_sf", "ar_df", "dllm_sf", "failfast")


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
    assert parse_args(line.split()).kinds == kinds


def test_several_values_sweep() -> None:
    line = "--spec_len 4 8 --drafter_thresholds 0.05 0.9 --sweep_lowconf_threshold 0.3 0.4"
    config = parse_args(line.split())  # noqa: SIM905
    names = [spec.name for spec in config.drafter_specs]
    assert len(names) == len(set(names)) == 1 + 2 + 2 + 4 + 4
    assert {"ar_None_sf_8", "dllm_0.9_sf_4", "dllm_0.05_df_0.3_60_10", "dllm_0.9_df_0.4_60_10"} <= set(names)
    assert all(spec.first_window == 4 for spec in config.drafter_specs if isinstance(spec, FailFast))


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
        ("--read_pickle --overwrite", "overwrite"),
        ("--read_pickle --dry_run", "dry_run"),
        ("--block_size 1 --small_block_size 1", "block_size"),
        ("--target_model_name smollm2 --drafters ar_sf", "--ar_model_name"),
        ("--target_model_name smollm2 --ar_model_name folder", "--dllm_dir"),
    ],
)
def test_contradictions_are_named(line: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        parse_args(line.split())
