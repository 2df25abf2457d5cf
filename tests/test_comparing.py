"""What a ranking says of the drafters themselves, from the cards of checkpoints to text, JSON and the report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from samples import make_plain, make_record, with_settings

from specdec.commands import rank
from specdec.drafters.dflash import DFLASH_HEAD
from specdec.drafters.families import filled_block
from specdec.models.card import MAX_READ, MAX_TEXT, read_card
from specdec.ranking.entries import entry_of, merge
from specdec.records.record import Record, record_path, save_record
from specdec.runs.drafter_facts import DrafterFacts, drafter_facts
from specdec.runs.run_file import RunFile, read_run
from specdec.views.drafters_table import drafters_document, drafters_table
from specdec.views.report_data import report_data

AR, HYBRID, LOOKUP = "ar_None_sf_3", "lookup_3_sf_10_else_ar_None_sf_3", "lookup_3_sf_10"
CARD = {"datasets": "a/b, c", "base_model": None}
MODEL = {"name": "org/drafter", "sha256": "d", "num_parameters": 3 * 10**6, "kv_values_per_token": 64, "card": CARD}


def asked(model: dict[str, Any]) -> dict[str, Any]:
    """What a run.json says of a run with this drafter."""
    wanted = {"target": "bundled", "dataset": "gsm8k", "max_new_tokens": 64, "question_ids": [0], "drafters": [AR]}
    return wanted | {"end": None, "generation": {"dtype": "float32"}, "models": {"AR drafter": model}}


def drafted(name: str, **settings: Any) -> Record:
    record = make_record(drafter=name)
    return replace(record, identity=with_settings(record.identity, {"drafter_sha256": "d", **settings}))


def known_of(model: dict[str, Any], *records: Record) -> dict[str, DrafterFacts]:
    return {one.drafter_name: one for one in drafter_facts(records, [asked(model)])}


# --- cards ---


@pytest.mark.parametrize(
    ("text", "datasets", "base_model"),
    [
        ("---\ndatasets:\n- a/b\n  # a comment\n- 'c'\nbase_model: x/y # for it\n---\n# Title\n", "a/b, c", "x/y"),
        ('---\r\nbase_model: [x/y, "z"]\r\ndatasets:\r\n  - a\r\n\r\n  - b\r\n---\r\n', "a, b", "x/y, z"),
        ("\ufeff---\ndatasets: []\nbase_model: null\n---\n", None, None),
        ("---\nother:\n  base_model: x\nbase_models: y\ndatasets:\nlicense: mit\n---\n", None, None),
        ("---\nbase_model: !!python/name:os.system [x]\n---\n", None, "!!python/name:os.system [x]"),
        ("---\nbase_model: x\n", None, None),  # no end: not front matter
        ("# Title\n---\nbase_model: x\n---\n", None, None),
        ("", None, None),
    ],
)
def test_a_card_is_read_as_text(tmp_path: Path, text: str, datasets: str | None, base_model: str | None) -> None:
    (tmp_path / "README.md").write_bytes(text.encode())
    assert read_card(tmp_path) == {"datasets": datasets, "base_model": base_model}


def test_what_a_card_says_is_bounded_and_prints(tmp_path: Path) -> None:
    assert read_card(tmp_path) == {"datasets": None, "base_model": None}
    (tmp_path / "README.md").write_bytes(b"---\nbase_model: " + b"x" * 500 + b"\ndatasets: a\x1b[2J\xff\n---\n")
    found = read_card(tmp_path)
    assert len(str(found["base_model"])) == MAX_TEXT and str(found["datasets"]).isprintable()
    (tmp_path / "README.md").write_text("---\n" + "x" * MAX_READ + "\nbase_model: x\n---\n")
    assert read_card(tmp_path)["base_model"] is None
    (tmp_path / "README.md").unlink()
    (tmp_path / "README.md").mkdir()
    assert read_card(tmp_path)["base_model"] is None


# --- facts ---


def test_a_hybrids_facts_are_its_last_parts(tmp_path: Path) -> None:
    found = known_of(MODEL, drafted(AR), drafted(HYBRID), drafted(LOOKUP), make_plain())
    assert found[HYBRID] == replace(found[AR], drafter_name=HYBRID) and "plain" not in found
    assert (found[LOOKUP].has_model, found[LOOKUP].model) == (False, None)
    assert found[AR].model is not None and found[AR].model.datasets == "a/b, c"


def test_blocks_and_thinking_are_those_of_the_records() -> None:
    found = known_of({**MODEL, "block_size": 16}, drafted(AR), drafted("dllm_0.05_sf_8", block_size=32, thinking="on"))
    assert (found[AR].block_size, found["dllm_0.05_sf_8"].block_size) == (16, 32)
    records = drafted(AR), drafted(AR, thinking="off"), drafted(LOOKUP)
    said = {one["drafter_name"]: one["thinking"] for one in drafters_document([], merge(map(entry_of, records)))}
    assert said == {AR: "template's, off", LOOKUP: "template's"}
    assert filled_block(DFLASH_HEAD, {"dflash_block": 16}) == 16 and filled_block(DFLASH_HEAD, {}) is None


def test_what_is_not_known_is_not_guessed() -> None:
    older = {key: value for key, value in MODEL.items() if key != "card"}
    stats = merge(map(entry_of, [drafted(AR), make_plain()]))
    (known,) = drafters_document(list(known_of(MODEL, drafted(AR)).values()), stats)
    assert known["card"] == CARD and known["weight_bytes_per_pass"] == 12 * 10**6
    assert known["passes_per_round"] == drafted(AR).num_forward_passes / 2 and known["acceptance_len_counts_bonus"]
    (without_card,) = drafters_document(list(known_of(older, drafted(AR)).values()), stats)
    assert without_card["card"] is None and without_card["num_parameters"] == 3 * 10**6
    (unknown,) = drafters_document(drafter_facts([drafted(AR)], []), stats)
    assert drafters_document([], stats) == [unknown] and drafters_table([], stats) == ""
    assert unknown["has_model"] and unknown["num_parameters"] is unknown["model"] is unknown["card"] is None
    assert "unknown" in drafters_table(drafter_facts([drafted(AR)], []), stats)
    lines = [
        drafters_table(list(known_of({**MODEL, "name": "x" * 50 + end}, drafted(AR)).values()), stats) for end in "ab"
    ]
    assert "~" + "x" * 38 + "a " in lines[0] and "~" + "x" * 38 + "b " in lines[1]
    assert "not said" in drafters_table(list(known_of(MODEL, drafted(AR)).values()), stats)
    for card in (["a"], {"datasets": 3, "base_model": ["x"]}, "text", None):
        known_of({**MODEL, "card": card, "block_size": "x"}, drafted(AR))


# --- where they are shown ---


def test_rank_shows_them_wide_and_as_json_alone(tmp_path: Path) -> None:
    for record in (drafted(AR), drafted(LOOKUP), make_plain()):
        save_record(record, record_path(tmp_path, "bundled", "gsm8k", 0, record.drafter_name, 64))
    with RunFile(tmp_path, asked(MODEL)) as run:
        pass
    assert read_run(run.path)["models"]["AR drafter"]["card"] == CARD
    assert "org/drafter" not in rank.run([str(tmp_path)])
    text = rank.run([str(tmp_path), "--wide"])
    assert "org/drafter" in text and "a/b, c" in text and "11.4 MiB" in text
    drafters = json.loads(rank.run([str(tmp_path), "--json"]))["drafters"]
    assert [(one["drafter_name"], one["num_parameters"]) for one in drafters] == [(AR, 3 * 10**6), (LOOKUP, 0)]


def test_the_report_says_them_of_the_drafter_that_is_shown() -> None:
    records = [drafted(AR), drafted(LOOKUP), make_plain()]
    data = report_data(records, merge(map(entry_of, records)), [asked(MODEL)])
    said = {one["name"]: one["facts"] for one in data["drafters"]}
    assert ("org/drafter", "model") in said[AR] and ("not said", "made for or from") in said[AR]
    assert said[LOOKUP][0] == ("no model", "") and said["plain"] == []
