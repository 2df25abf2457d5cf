"""Training runs and generation, on toy sizes: losses fall, runs go on where they stopped, answers are the model's."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_training import END_ID, LOOP, SHAPE, counting_docs, train_one
from toys import toy_model

from specdec.errors import UserError
from training import answers as answers_file
from training import models, self_generate
from training.answers import DecodeSettings
from training.decoder import BatchDecoder
from training.graphs import Graphs
from training.loop import OutOfTime, Place

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["target", "ar", "dllm"])
def test_loss_falls_and_resume_is_bit_identical(kind, tokenizer, tmp_path):
    whole, report = train_one(kind, tokenizer, Place(tmp_path / "whole.pt", CPU, log_every=8))
    assert report.losses[-1][1] < 0.85 * report.losses[0][1]
    stopped = Place(tmp_path / "parts.pt", CPU, deadline=time.monotonic() - 1, log_every=8)
    with pytest.raises(OutOfTime):
        train_one(kind, tokenizer, stopped)
    interrupted = replace(stopped, deadline=None, checkpoint_every=8)
    resumed, again = train_one(kind, tokenizer, interrupted)
    assert again.tokens == report.tokens
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_checkpoint_of_another_run_is_refused_and_kept(tokenizer, tmp_path):
    place = Place(tmp_path / "run.pt", CPU, deadline=time.monotonic() - 1)
    with pytest.raises(OutOfTime):
        train_one("target", tokenizer, place)
    content = place.checkpoint.read_bytes()
    with pytest.raises(UserError, match="learning_rate"):
        train_one("target", tokenizer, place, replace(LOOP, learning_rate=1.0))
    assert place.checkpoint.read_bytes() == content
    place.checkpoint.write_bytes(content[:1000])
    with pytest.raises(UserError, match="readable"):
        train_one("target", tokenizer, place)


def test_compiled_layers_train_what_ordinary_ones_do(tokenizer, tmp_path, monkeypatch):
    """Without the code generator, which takes a minute; that every layer goes through it, and shapes may change."""
    usual, compiled = torch.nn.Module.compile, []

    def compile_quickly(module, **options):
        compiled.append(module)
        usual(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_quickly)
    loop = replace(LOOP, num_steps=6)
    _, ordinary = train_one("dllm", tokenizer, Place(tmp_path / "a.pt", CPU, log_every=1), loop)
    model, report = train_one("dllm", tokenizer, Place(tmp_path / "b.pt", CPU, log_every=1, is_compiled=True), loop)
    assert compiled == list(model.model.layers) and np.allclose(report.losses, ordinary.losses, rtol=1e-5)


def plain_greedy(model, prompt: list[int], limit: int) -> list[int]:
    answer: list[int] = []
    while len(answer) < limit and (not answer or answer[-1] != END_ID):
        with torch.no_grad():
            answer.append(int(model(torch.tensor([prompt + answer])).logits[0, -1].argmax()))
    return answer


def test_self_generation_equals_plain_greedy_and_resumes(tokenizer, tmp_path):
    model, _ = train_one("target", tokenizer, Place(tmp_path / "run.pt", CPU), replace(LOOP, num_steps=40))
    model.eval()
    docs = counting_docs()
    prompts = [docs.tokens[s : s + n].tolist() for s, n in zip(docs.starts, docs.prompt_lens, strict=True)][:10]
    settings = DecodeSettings(max_new_tokens=24, max_rows=4, check_every=3)
    path = tmp_path / "answers.npz"
    with pytest.raises(OutOfTime):
        self_generate.self_generate(model, prompts, [END_ID], path, settings, deadline=time.monotonic() - 1)
    partial = path.with_suffix(".partial.jsonl")
    rows, answers = [0], [plain_greedy(model, prompts[0], 24)]
    with partial.open("a") as file:
        file.write(json.dumps({"rows": rows, "answers": answers}) + '\n{"rows": [1], "ans')
    made = self_generate.self_generate(model, prompts, [END_ID], path, settings)
    assert made.answers == [plain_greedy(model, prompt, 24) for prompt in prompts]
    assert made.is_truncated == [answer[-1] != END_ID for answer in made.answers]
    assert answers_file.load_answers(path) == made and not partial.exists()
    # Interrupted when all was written but the file of all: nothing is left to decode.
    partial.write_text(
        json.dumps(self_generate._identity(model, prompts, [END_ID], settings))
        + "\n"
        + json.dumps({"rows": list(range(10)), "answers": made.answers})
        + "\n"
    )
    assert self_generate.self_generate(model, prompts, [END_ID], path, settings) == made


def test_sampling_follows_the_distribution_of_the_model(tokenizer):
    """Frequencies of the first two tokens of 6,000 answers, against the probabilities that the model gives."""
    model, temperature = models.new_qwen2(replace(SHAPE, vocab_size=6), 0).eval(), 0.7
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(2)
    prompt, count = [1, 2, 3], 6000
    torch.manual_seed(0)
    decoder = BatchDecoder(model, [], DecodeSettings(2, max_rows=500, check_every=1, temperature=temperature))
    drawn = np.zeros((6, 6))
    for finished in decoder.answers([prompt] * count):
        for first, second in finished.values():
            drawn[first, second] += 1
    with torch.no_grad():
        first = (model(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
        prefixes = torch.tensor([[*prompt, token] for token in range(6)])
        second = (model(prefixes).logits[:, -1] / temperature).softmax(-1)
    expected = count * (first[:, None] * second).numpy()
    chi_square = float(((drawn - expected) ** 2 / expected).sum())
    assert drawn.sum() == count and expected.min() > 5 and chi_square < 67  # 35 degrees of freedom, p = 0.001
    assert float(((drawn.T - expected) ** 2 / expected).sum()) > 200  # the wrong way round is seen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_graphs_change_neither_gradients_nor_answers(tokenizer, tmp_path):
    """On a GPU, replayed steps train what ordinary ones do, and replayed decoding writes what ordinary does."""
    docs = counting_docs()
    prompts = [docs.tokens[s : s + n].tolist() for s, n in zip(docs.starts, docs.prompt_lens, strict=True)]
    found = []
    for is_capturing in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            if not is_capturing:
                patch.setattr(Graphs, "_capture", lambda self, work: None)
                patch.setattr(Graphs, "__contains__", lambda self, key: False)
                patch.setattr(Graphs, "run", lambda self, key, work: work())
            place = Place(tmp_path / f"{is_capturing}.pt", torch.device("cuda"))
            model, report = train_one("target", tokenizer, place)
            settings = DecodeSettings(24, max_rows=4, check_every=3)
            answers: dict = {}
            for finished in BatchDecoder(model, [END_ID], settings).answers(prompts):
                answers |= finished
            found.append((report.losses, answers))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-3) and found[0][1] == found[1][1]


def test_answers_of_no_numbers_and_prompts_of_no_tokens_are_one_line():
    model = toy_model("qwen2", 1)
    decoder = BatchDecoder(model, [], DecodeSettings(4, max_rows=2, check_every=2))
    assert [len(one) for finished in decoder.answers([[1, 2]]) for one in finished.values()] == [4]
    with pytest.raises(UserError, match="token 64, and the target's embedding table has 64 rows"):
        next(decoder.answers([[1, 64]]))
    with torch.no_grad():
        model.lm_head.weight[7] = torch.nan
    with pytest.raises(UserError, match="not finite numbers in float32"):
        next(decoder.answers([[1, 2]]))
