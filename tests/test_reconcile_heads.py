"""Reconciling with models: a server whose head reads other layers, or not its vocabulary map, is known by its counts.

The server is the live loop over the mistaken network; what it is known by are chains along the recorded texts.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from families import save_model
from heads import save_head, taught, toy_head
from toys import greedy_tokens, random_ids, toy_model, weaken_attention

from specdec.commands import reconcile
from specdec.config import RunConfig
from specdec.drafters.base import Spec
from specdec.drafters.families import parse_name
from specdec.questions.sets import load_problems
from specdec.runs import drafter_variants
from specdec.runs.drafter_variants import IGNORES_MAP, ONE_NORM
from specdec.runs.recording import plan_traces, record_trace
from specdec.session import Session, open_session
from specdec.traces.trace import save_trace

pytestmark = pytest.mark.slow
DRAFTER, BUDGET, QUESTIONS = "eagle3_sf_4", 24, range(5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A target of three layers and a head that reads the second, taught on what the target writes."""
    made = tmp_path_factory.mktemp("heads")
    target = weaken_attention(toy_model("llama", 31, scale=4.0, num_layers=3), 0.3)
    prompts = [random_ids(seed, 8) for seed in QUESTIONS]
    texts = [[*one, *greedy_tokens(target, one, max_new_tokens=BUDGET, stop_ids=())[0]] for one in prompts]
    head = toy_head("safeailab", target, 5, taps=(1, 1, 1), draft_vocab_size=40)
    save_model(made / "target", target)
    save_head(made / "head", taught(head, target, texts, epochs=20))
    return made


def models(folder: Path) -> dict[str, str]:
    return {"target_model_name": str(folder / "target"), "eagle3_dir": str(folder / "head"), "device": "cpu"}


@pytest.fixture(scope="module")
def session(folder: Path) -> Session:
    asked = {"drafters": ("plain", "eagle3_sf"), "max_new_tokens": BUDGET, "draft_len": (6,), "record": True}
    return open_session(RunConfig.of(**models(folder), **asked, output_dir=str(folder / "results")))


@pytest.fixture(scope="module")
def results(session: Session, folder: Path) -> Path:
    """A results folder of traces."""
    for number, job in enumerate(plan_traces(session, load_problems("bundled", question_ids=list(QUESTIONS)))):
        made = dataclasses.replace(job, prompt_ids=random_ids(number, 8))
        save_trace(record_trace(session, made, lambda: None), job.path)
    return folder / "results"


@pytest.fixture
def said(session: Session, results: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[object]:
    """What the command says of a server that makes a mistake."""

    def run(mistake: AbstractContextManager[None], *more: str) -> dict:
        with mistake:
            counts = [counted(session, parse_name(DRAFTER), number, random_ids(number, 8)) for number in QUESTIONS]
        (folder / "counts.json").write_text(json.dumps(counts))
        flags = [word for name, value in models(folder).items() for word in (f"--{name}", value)]
        asked = [str(results), "--drafter", DRAFTER, "--counts", str(folder / "counts.json"), "--json"]
        assert reconcile.main([*asked, *flags, *more], "failfast reconcile") == 0
        return json.loads(capsys.readouterr().out)

    yield run


def counted(session: Session, spec: Spec, number: int, prompt_ids: list[int]) -> dict[str, int]:
    """A server's counts of a question."""
    rounds = session.decode(spec, prompt_ids)
    drafted, accepted = (sum(getattr(one, name) for one in rounds) for name in ("draft_len", "accepted_len"))
    sums = {"num_rounds": len(rounds), "num_drafted": drafted, "num_accepted": accepted}
    return {"question_id": number, "num_tokens": sum(len(one.emitted_tokens) for one in rounds), **sums}


def test_a_server_with_our_head_agrees_without_any_change(said) -> None:
    found = said(nullcontext())
    assert found["is_explained"] and not found["findings"] and found["all"]["num_accepted"] > 0


@pytest.mark.parametrize("kind", ["taps", "d2t"])
def test_a_mistaken_head_is_named_first(kind: str, said, session: Session) -> None:
    network = session.model_of(parse_name(DRAFTER))
    of = {"taps": drafter_variants._with(network, "taps", (0, 0, 0)), "d2t": drafter_variants._without_map(network)}
    text = {"taps": "taps one layer lower: [0, 0, 0], where ours are [1, 1, 1]", "d2t": IGNORES_MAP}
    found = said(of[kind], "--with_models")
    assert [(one["kind"], one["text"]) for one in found["findings"]] == [("drafter", text[kind])]
    assert found["is_explained"] and network.taps == (1, 1, 1)


def test_a_head_whose_layers_share_a_norm_by_mistake_is_named(tmp_path: Path, capsys) -> None:
    asked = {"drafters": ("plain", "dflash_sf"), "max_new_tokens": 32, "device": "cpu", "record": True}
    session, spec = open_session(RunConfig.of(**asked, output_dir=str(tmp_path))), parse_name("dflash_sf_10")
    problems = load_problems("bundled", num_questions=4)
    for job in plan_traces(session, problems):
        save_trace(record_trace(session, job, lambda: None), job.path)
    network = session.model_of(spec)
    with drafter_variants._with(network, "context_norms", (0,) * len(network.context_norms)):
        counts = [counted(session, spec, one.question_id, session.encode(one.messages)) for one in problems]
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    command = [str(tmp_path), "--drafter", spec.name, "--counts", str(tmp_path / "counts.json"), "--json"]
    assert reconcile.main([*command, "--with_models", "--device", "cpu"], "failfast reconcile") == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["text"] for one in found["findings"]] == [ONE_NORM] and found["is_explained"]


def test_without_models_the_mistake_is_left_unexplained(said, session: Session) -> None:
    found = said(drafter_variants._without_map(session.model_of(parse_name(DRAFTER))))
    assert not found["is_explained"] and found["findings"][-1]["kind"] in ("weights", "unexplained")


def test_other_models_than_the_recorded_ones_are_refused(results: Path, folder: Path, capsys) -> None:
    (folder / "counts.json").write_text('[{"question_id": 0, "num_drafted": 4, "num_accepted": 1}]')
    save_head(folder / "other", toy_head("safeailab", toy_model("llama", 31, num_layers=3), 9, taps=(1, 1, 1)))
    flags = ["--target_model_name", str(folder / "target"), "--eagle3_dir", str(folder / "other"), "--device", "cpu"]
    asked = [str(results), "--drafter", DRAFTER, "--counts", str(folder / "counts.json"), "--with_models"]
    assert reconcile.main([*asked, *flags], "failfast reconcile") == 2
    assert "was recorded with other models" in capsys.readouterr().err
