"""`failfast reconcile`: against a small server, against tables of counts, and what it refuses in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from fake_server import DONE, STEPS, FakeServer, Handler, Reply, data, hang_up, status, usage_chunk
from planted_servers import Drafts, Planted, copied_counts, oldest_place, prompt_of, recorded

from specdec import cli
from specdec.commands import reconcile
from specdec.decoding.chains import Chains
from specdec.drafters.lookup import OLDEST
from specdec.drafters.suffix import Suffix, SuffixDrafter
from specdec.drafters.token_drafter import token_chain
from specdec.errors import UserError
from specdec.ranking.served_counts import ServedCounts, read_counts
from specdec.records.identity import Identity
from specdec.traces.trace import Trace, save_trace, trace_path

QUESTIONS = range(4)
WARM_UP = 20  # tokens


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with traces of the bundled questions, of a target and a drafter that are functions."""
    folder = tmp_path_factory.mktemp("results")
    for number in QUESTIONS:
        answer = recorded(number)
        known = {"prompt_sha256": "", "stop_ids": sorted(answer.stop_ids)}
        identity = Identity("planted", "bundled", number, "plain", answer.budget, known)
        chains = [token_chain(list(draft or ()), [0.5] * len(draft or ())) for draft in answer.drafts]
        trace = Trace(
            identity=identity,
            provenance={},
            raw_data={},
            prompt_ids=prompt_of(number),
            output_tokens=list(answer.tokens),
            gaps=[3.0] * len(answer.tokens),
            output_text="",
            chains={"ar": Chains.pack("ar", {}, 9, chains)},
        )
        save_trace(trace, trace_path(folder, identity))
    return folder


class Speculating:
    """Replies of a planted server in turn, after one that warms up, and its metrics as vLLM counts them."""

    def __init__(self, server: Planted, questions: Sequence[int] = QUESTIONS) -> None:
        self.counts = [server.answer(number, prompt_of(number)) for number in questions]

    @property
    def replies(self) -> list[Reply]:
        warm = ServedCounts(0, 0, 0, num_tokens=WARM_UP, output_ids=[3] * WARM_UP, finish_reason="stop")
        return [reply_of(one) for one in (warm, *self.counts)]

    def metrics(self, num_answers: int, num_tokens: int) -> str:
        done = self.counts[: max(0, num_answers - 1)]
        lines = [f"vllm:generation_tokens_total {num_tokens}"]
        names = {"num_drafts": "drafts", "num_drafted": "draft_tokens", "num_accepted": "accepted_tokens"}
        for name, said in names.items():
            lines.append(f"vllm:spec_decode_num_{said}_total {sum(getattr(one, name) for one in done)}")
        for position in range(5):
            total = sum((one.accepted_per_position or [0] * 5)[position] for one in done)
            lines.append(f'vllm:spec_decode_num_accepted_tokens_per_pos_total{{position="{position}"}} {total}')
        return "\n".join([*lines, f"{STEPS}_count {sum(one.num_rounds or 0 for one in done)}"]) + "\n"


def reply_of(one: ServedCounts) -> Reply:
    def reply(handler: Handler) -> None:
        ids = one.output_ids or []
        handler.server.owner.count(len(ids))
        first = {"choices": [{"index": 0, "delta": {"role": "assistant"}}], "prompt_token_ids": one.prompt_ids}
        handler.stream([data(first)])
        for index, token in enumerate(ids):
            is_last = index == len(ids) - 1
            finish = one.finish_reason if is_last else None
            choice = {"index": 0, "delta": {"content": f"w{token} "}, "finish_reason": finish, "token_ids": [token]}
            handler.write(data({"choices": [choice]}))
        for chunk in (usage_chunk(len(ids)), DONE):
            handler.write(chunk)
        handler.end()

    return reply


@pytest.fixture(autouse=True)
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that arrive at once have times all the same: no test here is of time."""
    ticks = iter(range(10**9))
    monkeypatch.setattr("profiling.serving.server.Server.now", staticmethod(lambda: float(next(ticks))))


def run(results: Path, *more: str) -> int:
    return reconcile.main([str(results), "--drafter", "ar_None_sf_5", *more], "failfast reconcile")


def test_a_server_is_asked_and_explained(results, capsys):
    served = Speculating(Planted())
    with FakeServer(served.replies, metrics=served.metrics) as server:
        assert run(results, "--base_url", server.url) == 0
        assert run_requests(server) == {"planted"}
    text = capsys.readouterr().out
    assert "All counts of 4 questions are explained" in text and "NO" not in text
    places = [text.index(f"{number}. {kind}:") for number, kind in enumerate(("first token", "whole drafts"), 1)]
    assert places == sorted(places)


def run_requests(server: FakeServer) -> set[str]:
    assert all(one["return_token_ids"] is True and one["max_tokens"] == 60 for one in server.requests)
    return {one["model"] for one in server.requests}


def test_a_server_that_samples_is_asked_again(results, capsys):
    """Its answer to a question whose text parts from the records is another one the second time."""
    served, other = Speculating(Planted(says=lambda text: 3 + len(text) % 30)), Speculating(Planted(), [3])
    again = [reply_of(replace(other.counts[0], output_ids=[5, 6, 7, 8, 2], finish_reason="stop"))]
    with FakeServer([*served.replies, *again], metrics=served.metrics) as server:
        assert run(results, "--base_url", server.url, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["kind"] == "sampling defaults" and not found["is_explained"]


def test_a_server_that_looks_up_the_oldest_place_is_known_by_its_drafts(results, tmp_path, capsys):
    """vLLM's ngram; half of its rounds have no draft."""
    counts = copied(lambda text: oldest_place(text, 4, 2))
    assert 0 < sum(one.num_drafts for one in counts) < sum(one.num_rounds for one in counts)
    asked = [str(results), "--drafter", "lookup_2_sf_4", "--counts", save(tmp_path, counts), "--json"]
    assert reconcile.main(asked, "failfast reconcile") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_explained"] and found["findings"][0]["text"] == OLDEST


def test_suffix_decoding_is_told_by_the_text_alone(results, tmp_path, capsys):
    """vLLM's, with nothing remembered: drafts of any length up to its own, which go on after a stop token."""
    drafter = SuffixDrafter(Suffix(24, max_draft_len=8), ())
    counts = copied(lambda text: drafter.guess(text).tokens)
    asked = [str(results), "--drafter", "suffix_24_n8", "--counts", save(tmp_path, counts), "--json"]
    assert reconcile.main(asked, "failfast reconcile") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["is_explained"] and sum(one["server"]["num_drafted"] for one in found["questions"]) > 0


def copied(drafts: Drafts) -> list[ServedCounts]:
    return [copied_counts(number, prompt_of(number), list(recorded(number).tokens), drafts) for number in QUESTIONS]


def save(folder: Path, entries: Sequence[ServedCounts], name: str = "counts.json") -> str:
    path = folder / name
    path.write_text(
        json.dumps([{key: value for key, value in vars(one).items() if value is not None} for one in entries])
    )
    return str(path)


def test_a_table_of_counts_in_each_of_its_forms(results, tmp_path, capsys):
    entries = Speculating(Planted(draft_len=3)).counts
    as_json = save(tmp_path, entries)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps(one) for one in json.loads(Path(as_json).read_text())))
    row = tmp_path / "profiler.json"
    questions = [{**vars(one), "num_emitted": one.num_tokens - 1, "num_tokens": None} for one in entries]
    row.write_text("noise\n" + json.dumps({"engine": "vLLM", "row": {"questions": questions}}) + "\n")
    table = tmp_path / "table.csv"
    names = ("question_id", "num_drafted", "num_accepted", "num_rounds", "num_tokens", "output_ids")
    cells = [
        [" ".join(map(str, one.output_ids)) if n == "output_ids" else str(getattr(one, n)) for n in names]
        for one in entries
    ]
    table.write_text("\n".join(",".join(cell) for cell in [list(names), *cells]))
    for path in (as_json, lines, row, table):
        assert run(results, "--counts", str(path), "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["is_explained"] and found["findings"][0]["kind"] == "block length"
        assert [one["agrees"] for one in found["questions"]] == [True] * 4
        assert found["steps"][-1]["num_accepted"] <= sum(one.num_accepted for one in entries)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no question"),
        ("[]", "holds no question"),
        ("question_id,num_drafted\n0,5\n", "entry 1 has no num_accepted"),
        ("question_id,num_drafted,num_accepted\n0,five,1\n", "entry 1 has the num_drafted 'five'"),
        ("question_id,num_drafted,num_accepted\n0,5,1\n0,5,1\n", "has question 0 twice"),
        ("question_id,num_drafted,num_accepted\n77,5,1\n", "no trace of question 77"),
        ("question_id,num_drafted,num_accepted\n0,5,99\n", "99 accepted of 5"),
        ('[{"question_id": 0, "num_drafted": 5, "num_accepted": true}]', "has the num_accepted True"),
        ('[{"question_id": 0, "num_drafted": 5, "num_accepted": 1, "output_ids": ["a"]}]', "has the output_ids"),
        ("[3]", "entry 1 is 3 and not an object"),
        ('[{"question_id": 0', "is broken JSON"),
        ("question_id,num_drafted,num_accepted\n0,5,1,7\n", "entry 1 has more cells than the head has names"),
        ("question_id,num_drafted,num_accepted\n0,5," + "1" * 200_000, "is not a table"),
        ('{"row": {"questions": 3}}', "entry 1"),
        ("\x00\xff", "holds no question"),
    ],
)
def test_a_table_that_holds_no_counts_is_one_line(text, why, results, tmp_path, capsys):
    path = tmp_path / "counts"
    path.write_text(text, encoding="utf-8")
    assert run(results, "--counts", str(path)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("failfast reconcile: error: ") and why in error


def test_what_cannot_be_reconciled_is_one_line(results, tmp_path, capsys):
    counts = save(tmp_path, Speculating(Planted()).counts)
    for arguments, why in [
        ([str(results), "--counts", counts], "give --drafter"),
        ([str(results), "--drafter", "plain", "--counts", counts], "does not draft by a fixed length"),
        ([str(results), "--drafter", "eagle3_sf_3", "--counts", counts], "has no chains for eagle3_sf_3"),
        ([str(tmp_path), "--drafter", "ar_None_sf_5", "--counts", counts], "holds no traces"),
        ([str(results), "--drafter", "ar_None_sf_5", "--counts", str(tmp_path / "nowhere")], "cannot read"),
    ]:
        assert reconcile.main(arguments, "failfast reconcile") == 2
        error = capsys.readouterr().err
        assert why in error and error.count("\n") == 1


def broken_off(handler: Handler) -> None:
    handler.stream([data({"choices": [{"index": 0, "delta": {"content": "w"}}]})])
    handler.connection.close()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (broken_off, "question 2 has no whole answer, so nothing is counted"),
        (hang_up, "closed the connection without an answer"),
        (status(404, {"error": {"message": "no such model"}}), "asked for the model 'planted' (--served_name; "),
    ],
    ids=["in_the_middle", "gone", "model"],
)
def test_a_server_that_fails_in_the_middle_counts_nothing(reply, why, results, monkeypatch, capsys):
    monkeypatch.setattr("profiling.serving.server.Server.sleep", staticmethod(lambda seconds: None))
    served = Speculating(Planted())
    with FakeServer([*served.replies[:3], reply], metrics=served.metrics) as server:
        assert run(results, "--base_url", server.url) == 2
    output = capsys.readouterr()
    assert why in output.err and not output.out


def test_counts_that_are_hidden_somebody_else_s_or_called_otherwise_are_refused(results, capsys):
    served = Speculating(Planted())
    pages = {
        "does not answer": None,
        "has no counters of speculation": lambda answers, tokens: f"vllm:generation_tokens_total {tokens}\n",
        "while nobody else does": lambda answers, tokens: served.metrics(answers, 2 * tokens),
        "with speculation and metrics": lambda a, t: served.metrics(a, t).replace("spec_decode_num", "speculated"),
        "gauges and no counters": lambda answers, tokens: (
            f"sglang:generation_tokens_total {tokens}\nsglang:spec_accept_length 2.5\nsglang:spec_accept_rate 0.5\n"
        ),
    }
    for why, page in pages.items():
        with FakeServer(served.replies, metrics=page) as server:
            assert run(results, "--base_url", server.url) == 2
        output = capsys.readouterr()
        assert why in output.err.splitlines()[-1] and not output.out


def test_it_is_a_verb(capsys):
    assert "reconcile" in cli.overview()
    with pytest.raises(SystemExit):
        cli.main(["reconcile", "--help"])
    assert "--counts FILE" in capsys.readouterr().out


def test_a_question_without_tokens_is_read(tmp_path):
    path = tmp_path / "counts.csv"
    path.write_text("question_id,num_drafted,num_accepted,accepted_per_position\n3,10,4,2 1 1\n")
    assert read_counts(path) == [ServedCounts(3, 10, 4, accepted_per_position=[2, 1, 1])]


@pytest.mark.parametrize("is_lines", [True, False])
def test_what_a_servers_log_has_beside_counts_may_be_no_number(is_lines: bool, tmp_path: Path) -> None:
    """Programs write NaN for a time that there is none of; of a count it is refused."""
    entries = [{"question_id": 3, "num_drafted": 10, "num_accepted": 4, "ttft": math.nan}, {"question_id": 4}]
    entries[1] |= {"num_drafted": 1, "num_accepted": 0, "seed": 10**400}
    path = tmp_path / "counts.json"
    path.write_text("\n".join(map(json.dumps, entries)) if is_lines else json.dumps(entries))
    assert read_counts(path) == [ServedCounts(3, 10, 4), ServedCounts(4, 1, 0)]
    path.write_text(json.dumps([{**entries[0], "num_accepted": math.nan}]))
    with pytest.raises(UserError, match="entry 1 has the num_accepted nan"):
        read_counts(path)
