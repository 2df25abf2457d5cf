"""Ids and numbers at their borders: what is not a token is never written, what has no row is never read, and logits
that are not numbers end a run in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from dflash_heads import save_dflash, toy_dflash
from families import MASK_ID, WORDS, edit_config, flags, save_family, save_model
from heads import save_head, toy_head
from toys import random_ids, toy_model, toy_tokenizer

from specdec.commands import run as failfast
from specdec.config import RunConfig
from specdec.decoding.loop import Drafter, speculate
from specdec.decoding.sampled import SampledLM, SampledTarget
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.stopping import Draft
from specdec.decoding.target import Target
from specdec.drafters.base import Setup
from specdec.drafters.families import parse_name
from specdec.drafters.plain import NoDrafter
from specdec.errors import UserError
from specdec.models.graph.graph_lm import GraphLM
from specdec.models.lm import CachedLM
from specdec.models.pages import PagedLM, Row
from specdec.models.tokens import predicted_tokens
from specdec.records.record import find_records, load_record, record_path, target_name
from specdec.records.rounds import Round
from specdec.session import open_session

pytestmark = pytest.mark.slow
BACKENDS = {"eager": CachedLM, "graph": GraphLM}
NUM_TOKENS, GAPS = 50, (7, 30)


@pytest.fixture(autouse=True)
def toy_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specdec.models.graph.weights.HEAD_SIZES", (8,))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    """Its padding rows and gaps are louder than every token."""
    made = toy_model("llama", 2, scale=4.0)
    with torch.no_grad():
        made.lm_head.weight[[*GAPS, *range(NUM_TOKENS, 64)]] *= 20
    return made


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_token_is_never_predicted(model: torch.nn.Module, backend: str) -> None:
    lm, ids = BACKENDS[backend](model, NUM_TOKENS, gaps=GAPS), random_ids(1, 40)
    tokens, sure = lm.predict(ids)
    logits_LV = model(input_ids=torch.tensor([ids])).logits[0]
    assert not set(logits_LV.argmax(-1).tolist()) <= set(range(NUM_TOKENS)) - set(GAPS)
    logits_LV[:, [*GAPS, *range(NUM_TOKENS, 64)]] = -torch.inf
    assert tokens == logits_LV.argmax(-1).tolist()
    torch.testing.assert_close(torch.tensor(sure), logits_LV.softmax(-1).amax(-1), atol=1e-4, rtol=1e-4)
    lm.rollback(0)
    assert lm.forward(ids).shape == (40, NUM_TOKENS)
    lm.rollback(0)
    target = SampledTarget(lm, Sampler(Warp(5.0), "key"))
    target.start(ids)
    drawn = [target.verify(Draft()).next_token for _ in range(40)]
    assert max(drawn) < NUM_TOKENS and not set(GAPS) & set(drawn)


@pytest.mark.parametrize("warp", [None, Warp(1e-6), Warp(1.0, top_k=1)], ids=str)
@pytest.mark.parametrize("name", ["lookup_2_tree_9", "suffix_8_tree_9", "lookup_2_sf_5", "suffix_8"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prompts_ids_that_are_no_tokens_are_drafted_in_vain(
    model: torch.nn.Module, backend: str, name: str, warp: Warp | None
) -> None:
    """Ids of padding rows, as a library may be given them, stand in the prompt and so in what is copied from it."""
    phrase, lm = [9, NUM_TOKENS + 3, GAPS[0], 63], BACKENDS[backend](model, NUM_TOKENS, gaps=GAPS)
    prompt = [*phrase, 4, *phrase, 5, *phrase[:2]]

    def decoded(drafter: Drafter, target: Target) -> list[Round]:
        return speculate(target, drafter, prompt, max_new_tokens=12, stop_ids=())

    plain = decoded(NoDrafter(), Target(lm))
    target = Target(lm) if warp is None else SampledTarget(lm, Sampler(warp, "key"))
    rounds = decoded(parse_name(name).drafter(Setup(())), target)
    assert [token for made in rounds for token in made.emitted_tokens] == [made.next_token for made in plain]
    assert {GAPS[0], 63} <= {token for made in rounds for token in made.draft_tokens}


def test_rows_of_pages_are_cut_alike(model: torch.nn.Module) -> None:
    paged = PagedLM(CachedLM(model, NUM_TOKENS, GAPS), 1)
    logits_KV = paged.forward([Row((), (5,), (0,)), Row((), (6,), (0,))])
    assert logits_KV.shape == (2, NUM_TOKENS) and logits_KV[:, list(GAPS)].eq(-torch.inf).all()
    with pytest.raises(UserError, match="no token 64"):
        paged.forward([Row((), (64,), (0,))])


def test_tokens_are_told_from_padding() -> None:
    tokenizer = toy_tokenizer(WORDS)
    count = len(tokenizer)
    assert predicted_tokens(tokenizer, 64) == (count, ()) and predicted_tokens(tokenizer, 9) == (9, ())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("wrong", [64, -1, 10**6])
def test_an_id_without_a_row_is_one_line_and_no_read(model: torch.nn.Module, backend: str, wrong: int) -> None:
    lm = BACKENDS[backend](model)
    lm.forward([1, 2, 3])
    lm.commit(3)
    for call in (lm.forward, lm.predict):
        with pytest.raises(UserError, match=f"no token {wrong}: its embedding table has 64 rows"):
            call([4, wrong])
    assert lm.length == 3 and lm.predict([5]) == lm.predict([5])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers_end_every_way_to_ask(backend: str, number: float) -> None:
    model = toy_model("llama", 2)
    with torch.no_grad():
        model.lm_head.weight[9] = number
    lm, draft = BACKENDS[backend](model), Draft([3, 4], confidences=[0.5, 0.5])
    sampler = Sampler(Warp(1.0, top_p=0.9), "key")
    asks = {
        "greedy": lambda: lm.predict([1, 2]),
        "verify": lambda: _verified(Target(lm), draft),
        "plain, sampled": lambda: _verified(SampledTarget(lm, sampler), Draft()),
        "sampled": lambda: _verified(SampledTarget(lm, sampler), draft),
        "drawn": lambda: SampledLM(lm, sampler).predict([1, 2]),
    }
    for ask in asks.values():
        lm.rollback(0)
        with pytest.raises(UserError, match="not finite numbers in float32: its weights"):
            ask()


def _verified(target: Target, draft: Draft) -> None:
    target.start([1, 2])
    target.verify(draft)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_family(tmp_path_factory.mktemp("family"))


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()  # a bar of whoever saved the models
    status = failfast.main([*arguments, "--num_questions", "1", "--latency_profile", "none"])
    return status, capsys.readouterr().err


def grown(folder: Path, seed: int, num_rows: int) -> Path:
    """A checkpoint with padding rows, all louder than its tokens."""
    model = toy_model("qwen2", seed, scale=4.0)
    model.resize_token_embeddings(num_rows, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[64:] = 9 * model.lm_head.weight[10 : 10 + num_rows - 64]
    return save_model(folder, model)


@pytest.mark.parametrize("sampling", [(), ("--temperature", "2")])
@pytest.mark.parametrize("engine", ["eager", "graph"])
def test_a_wider_target_writes_no_padding(family, tmp_path, capsys, sampling, engine) -> None:
    wide = {**family, "target": grown(tmp_path / "wide", 1, 72)}
    drafters = ("--drafters", "plain", "ar_sf", "dllm_sf", "--engine", engine)
    status, error = run(flags(wide, tmp_path / "out", *drafters, *sampling), capsys)
    assert status == 0, error
    records = [load_record(path) for path in find_records(tmp_path / "out")]
    assert len(records) == 3 and all(max(record.output_tokens) < 62 for record in records)


def test_a_drafter_that_lacks_a_token_of_the_target_is_refused_before_weights(family, tmp_path, capsys) -> None:
    narrow = save_model(tmp_path / "narrow", toy_model("qwen2", 2, vocab_size=40))
    for more in ((), ("--dry_run",)):
        status, error = run(flags({**family, "ar": narrow}, tmp_path / "out", "--drafters", "ar_sf", *more), capsys)
        assert status == 2 and "40 rows" in error and error.count("\n") == 1


def test_a_prompt_token_without_a_row_is_named_before_weights(family, tmp_path, capsys) -> None:
    narrow = save_model(tmp_path / "narrow", toy_model("qwen2", 2, vocab_size=40))
    settings = json.loads((narrow / "tokenizer_config.json").read_text())
    (narrow / "chat_template.jinja").unlink(missing_ok=True)
    (narrow / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "word50"}))
    (narrow / "model.safetensors").write_bytes(b"never read")
    for more in ((), ("--dry_run",)):
        arguments = flags({**family, "target": narrow}, tmp_path / "out", "--drafters", "plain", *more)
        status, error = run(arguments, capsys)
        assert status == 2 and "word50" in error and "40 rows" in error and error.count("\n") == 1


def without_numbers(which: str, folder: Path) -> Path:
    """A model of a run, or a head of it, one of whose rows is not of numbers."""
    model = toy_model("qwen2", 1, scale=4.0)
    with torch.no_grad():
        if which == "eagle3":
            head = toy_head("safeailab", model, 5)
            head.tensors["lm_head.weight"][5] = torch.nan
            return save_head(folder, head)
        if which == "dflash":
            block = toy_dflash("DFlashDraftModel", model, 5, taps=(0,))
            block.tensors["norm.weight"][5] = torch.nan
            return save_dflash(folder, block)
        model.lm_head.weight[5] = torch.nan
    return save_model(folder, model, **({"mask_token_id": MASK_ID} if which == "dllm" else {}))


@pytest.mark.parametrize("drafter", ["eagle3_sf", "eagle3_tree", "dflash_sf", "dflash_tree"])
@pytest.mark.parametrize("record", [(), ("--record",)])
def test_a_head_without_numbers_is_named_and_not_its_target(family, tmp_path, capsys, drafter, record) -> None:
    which = drafter.partition("_")[0]
    head = without_numbers(which, tmp_path / which)
    arguments = flags(family, tmp_path / "out", f"--{which}_dir", str(head), "--drafters", drafter, *record)
    status, error = run([*arguments, "--num_questions", "1", "--spec_len", "4"], capsys)
    assert status == 2 and "not finite" in error and str(head) in error and error.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*.npz")) and not find_records(tmp_path / "out")


@pytest.mark.parametrize("which", ["target", "ar", "dllm"])
@pytest.mark.parametrize("record", [(), ("--record",)])
def test_a_model_without_numbers_leaves_no_record_of_it(family, tmp_path, capsys, which, record) -> None:
    broken = {**family, which: without_numbers(which, tmp_path / which)}
    kinds = ("plain", *{"target": (), "ar": ("ar_sf",), "dllm": ("failfast",)}[which])
    status, error = run(flags(broken, tmp_path / "out", "--drafters", *kinds, *record), capsys)
    assert status == 2 and "not finite" in error and str(tmp_path / which) in error and error.count("\n") == 1
    assert len(find_records(tmp_path / "out")) == (0 if which == "target" or record else 1)
    assert not list((tmp_path / "out").rglob("*.npz"))


def test_a_drafter_is_run_with_the_block_that_it_was_trained_with(family, tmp_path, caplog) -> None:
    edit_config(family["dllm"], bd_size=16)
    asked = {"target_model_name": str(family["target"]), "dllm_dir": str(family["dllm"]), "drafters": ("dllm_sf",)}
    try:
        own = open_session(RunConfig.of(**asked))
        assert own.setup(own.specs[0]).options["block_size"] == 16 and not caplog.records
        assert own.results_identity(own.specs[0])["block_size"] == 16
        other = open_session(RunConfig.of(**asked, block_size=32))
        assert other.results_identity(other.specs[0])["block_size"] == 32
        assert len(caplog.records) == 1 and "--block_size 32" in caplog.text and "16" in caplog.text
        for wrong in ("x", 0, 1, 12, True):
            edit_config(family["dllm"], bd_size=wrong)
            with pytest.raises(UserError, match="block"):
                open_session(RunConfig.of(**asked))
    finally:
        edit_config(family["dllm"], bd_size=None)
    silent = open_session(RunConfig.of(**asked))
    assert silent.results_identity(silent.specs[0])["block_size"] == 32


def test_a_target_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "ckpt" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "ckpt")
    monkeypatch.chdir(tmp_path / "ckpt")
    monkeypatch.setenv("HOME", str(tmp_path / "ckpt"))
    given = {
        **{".": "ckpt", "./": "ckpt", "inner/..": "ckpt", "inner/": "inner", "./inner": "inner", "..": tmp_path.name},
        **{"~": "ckpt", "~/inner": "inner", str(tmp_path / "link"): "link", "Qwen/Qwen2.5-7B": "Qwen2.5-7B"},
        **{"bundled": "bundled", "/": "root", "~nobody-here/x": "x"},
    }
    for one, wanted in given.items():
        config = RunConfig.of(target_model_name=one)
        assert target_name(one) == config.models.target_name == wanted
        assert record_path("out", one, "d", 0, "plain", 8).parts[2] == wanted
        assert target_name(wanted) == wanted
