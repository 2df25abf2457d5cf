"""Places: records that an older version named are found where they lie, and are in nobody's way."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from samples import AR, FAILFAST, make_record

from specdec.errors import UserError
from specdec.ranking.entries import entry_of, merge, records_of
from specdec.records.identity import former_name
from specdec.records.places import load_finished, load_records, place_of, put_record
from specdec.records.record import Record, load_record, record_path, save_record
from specdec.runs.run_file import RunFile, find_runs, read_run
from specdec.runs.status import read_status

W9 = f"{FAILFAST}_w9"


def of_window(size: int) -> Record:
    record = make_record(drafter=FAILFAST if size == 10 else f"{FAILFAST}_w{size}")
    known = {**record.identity.settings, "tau": 0.45, "first_window": size, "rule": "published"}
    return replace(record, identity=replace(record.identity, settings=known))


def place(folder: Path, drafter: str) -> Path:
    return record_path(folder, "bundled", "gsm8k", 0, drafter, 64)


def put_as_before(folder: Path, record: Record, text: str = "the text\n") -> Path:
    """As an older version did: under a name, outside and inside, that holds no window."""
    path = place(folder, former_name(record.drafter_name))
    data = record.to_builtins() | {"drafter_name": former_name(record.drafter_name)}
    data["identity"] = record.identity.former()
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(data))
    path.with_suffix(".txt").write_text(text)
    return path


@pytest.mark.parametrize("name", ["plain", AR, FAILFAST, "dllm_0.05_sf_8", "dllm_0.05_ca_60_my_strict@P_w9"])
def test_only_names_that_hold_more_had_another(name) -> None:
    assert former_name(name) == name
    assert former_name(f"{FAILFAST}_w9_strict") == former_name(f"{FAILFAST}_strict") == former_name(W9) == FAILFAST


def test_an_older_record_is_done_where_it_lies_and_not_in_the_way(tmp_path) -> None:
    path = put_as_before(tmp_path, of_window(9))
    assert place_of(place(tmp_path, W9)) == path and place_of(path) is None
    assert load_finished(place(tmp_path, W9), of_window(9).identity) == of_window(9)
    assert load_finished(path, of_window(10).identity) is None
    assert load_finished(place(tmp_path, f"{FAILFAST}_w8"), of_window(8).identity) is None
    seeded = replace(of_window(9).identity, settings={**of_window(9).identity.settings, "seed": 1})
    with pytest.raises(UserError, match="seed: stored 0, asked 1"):
        load_finished(place(tmp_path, W9), seeded)


def test_what_takes_its_place_keeps_it(tmp_path, caplog) -> None:
    path = put_as_before(tmp_path, of_window(9))
    put_record(of_window(10), path, "another text\n")
    assert load_record(path) == of_window(10) and load_record(place(tmp_path, W9)) == of_window(9)
    assert place(tmp_path, W9).with_suffix(".txt").read_text() == "the text\n"
    assert [one.getMessage().count("kept at") for one in caplog.records] == [1]
    put_record(of_window(10), path, "again\n")
    assert len(caplog.records) == 1 and len(load_records(tmp_path)) == 2


def test_a_record_that_is_there_twice_counts_once(tmp_path) -> None:
    put_as_before(tmp_path, of_window(9))
    put_record(of_window(9), place(tmp_path, W9), "made again\n")
    assert records_of(tmp_path) == [of_window(9)]


def test_a_damaged_file_is_its_own_drafters(tmp_path) -> None:
    path = put_as_before(tmp_path, of_window(9))
    path.write_bytes(b"half")
    assert (place_of(path), place_of(place(tmp_path, W9))) == (path, None)
    with pytest.raises(UserError, match="--overwrite"):
        load_finished(path, of_window(10).identity)
    put_record(of_window(10), path, "whole\n")
    assert load_records(tmp_path) == [of_window(10)]


def test_an_older_log_and_its_records_are_one_configuration() -> None:
    """Logs hold the digest of the identity as it was spelled."""
    record = entry_of(of_window(9))
    logged, other = replace(record, drafter_name=FAILFAST), entry_of(of_window(10))
    for stats in ([logged, record], [record, logged]):
        assert [entry.drafter_name for entry in merge(stats)] == [W9]
    assert [entry.drafter_name for entry in merge([record, other])] == [W9, FAILFAST]


def test_the_status_of_an_older_folder_says_what_was_run(tmp_path) -> None:
    asked = {"target": "bundled", "dataset": "gsm8k", "max_new_tokens": 64, "question_ids": [0], "drafters": [FAILFAST]}
    with RunFile(tmp_path, {**asked, "identities": {FAILFAST: of_window(9).identity.former()}}) as run:
        run.job = (0, FAILFAST)
    put_as_before(tmp_path, of_window(9))
    assert read_run(find_runs(tmp_path)[0])["drafters"] == [W9]
    (key, progress), *others = read_status(tmp_path).configurations.items()
    assert (key[-1], progress.done, others) == (W9, {0}, [])
    with RunFile(tmp_path, asked):
        pass
    found = {name: progress.done for (*_, name), progress in read_status(tmp_path).configurations.items()}
    assert found == {W9: {0}, FAILFAST: set()}
    document = json.loads(find_runs(tmp_path)[0].read_text())
    for damaged in ([], {FAILFAST: 3}, {FAILFAST: {"first_window": []}}):
        find_runs(tmp_path)[0].write_text(json.dumps({**document, "identities": damaged}))
        read_status(tmp_path)


def test_a_record_of_another_identity_is_refused_where_it_is_wanted_and_ranked_as_what_it_is(tmp_path) -> None:
    """Copied by hand: no folder's name says what a record is."""
    path = place(tmp_path, "ar_None_sf_4")
    save_record(make_record(), path)
    wanted = make_record(drafter="ar_None_sf_4").identity
    with pytest.raises(UserError, match="drafter: stored 'ar_None_sf_3', asked 'ar_None_sf_4'"):
        load_finished(path, wanted)
    assert [record.drafter_name for record in records_of(tmp_path)] == [AR]
