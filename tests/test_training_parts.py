"""What training is made of, without a training run: data, tokenizer, model folders, schedule, noise, losses."""

import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toy_training import END_ID, MASK_ID, SHAPE, TEXTS, counting_docs

from specdec.errors import UserError
from specdec.models.lm import CachedLM
from training import batches, corpus, export, losses, models, noise
from training import tokenizer as tokenizers
from training.train_dllm_drafter import mask_id_of
from training.train_eagle3 import Eagle3Training

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_data_rows_and_their_errors(tmp_path):
    assert corpus.gsm8k_answer("2*3=<<2*3=6>>6\n#### 6") == "2*3=6\nThe answer is \\boxed{6}."
    with pytest.raises(UserError, match="--data_dir"):
        corpus.load_examples(tmp_path)
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UserError, match="empty"):
        corpus.read_rows(empty)


def test_mixed_questions_come_behind_those_with_other_numbers():
    questions = [f"Ann has {n} cats. Bob has {n + 1} dogs. How many pets?\nShow \\boxed{{}}." for n in range(30)]
    questions[3] = "What is 3 + 4?\nShow \\boxed{}."
    found = corpus.with_variants(questions, 1, seed=2, num_mixed=2)
    assert found[:60] == corpus.with_variants(questions, 1, seed=2) and len(found) == 120
    assert found == corpus.with_variants(questions, 1, seed=2, num_mixed=2)
    assert all(text.endswith("\nShow \\boxed{}.") and "of of" not in text for text in found)
    assert all(re.fullmatch(r"What is \d \+ \d\?\nShow .*", found[60 + 30 * copy + 3]) for copy in range(2))
    orders = {re.sub(r"\d+", "N", text) for text in found[60:]}
    assert 4 < len(orders) <= 1 + 1 + 3 * 3


def test_tokenizer_round_trip_single_digits_and_chat(tokenizer):
    for text in [*TEXTS, "x=12.5\n\n  y\t$\\frac{1}{23}$ déjà 日本 <b>", ""]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
        pieces = tokenizer.convert_ids_to_tokens(ids)
        assert all(len(piece) == 1 for piece in pieces if any(c.isdigit() for c in piece))
    assert tokenizer.decode(tokenizers.chat_prompts(tokenizer, ["Hi"])[0]) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert (tokenizer.eos_token_id, mask_id_of(tokenizer)) == (END_ID, MASK_ID)
    with pytest.raises(UserError, match="--mask_token"):
        mask_id_of(tokenizer, "<|no such token|>")


def test_exported_folder_reads_text_as_the_bare_tokenizer_does(tokenizer, tokenizer_dir, tmp_path, monkeypatch):
    """With a qwen2 config.json beside it, transformers 5 takes Qwen2's tokenizer class: the ids must not change."""
    split = export.split_shards
    monkeypatch.setattr(export, "split_shards", lambda weights: split(weights, 20_000))
    model = models.new_qwen2(SHAPE, 0).bfloat16().float()
    export.write_model(model, tokenizer, tokenizer_dir, tmp_path / "model", {"steps": 1}, {"block_size": 32})
    loaded, again = models.load_model(tmp_path / "model"), tokenizers.load_tokenizer(tmp_path / "model")
    assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    for text in [*TEXTS, "(x+1)\r\n don't\tfoo 1st 3½ (日本)"]:
        assert tokenizer(text)["input_ids"] == again(text)["input_ids"]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["block_size"] == 32


def test_cutting_layers():
    model = models.new_qwen2(SHAPE, 0)
    cut = models.cut_layers(model, 2)
    assert torch.equal(cut.model.layers[1].mlp.up_proj.weight, model.model.layers[3].mlp.up_proj.weight)
    assert cut.lm_head.weight.data_ptr() == cut.model.embed_tokens.weight.data_ptr()
    with pytest.raises(UserError, match="layers"):
        models.cut_layers(model, 5)


def test_schedule_covers_every_document_once_an_epoch():
    schedule = batches.Schedule(np.arange(50) % 7, num_docs=10, seed=1)
    epoch = np.concatenate([schedule.rows(step) for step in range(5)])
    assert sorted(epoch) == list(range(50))
    assert np.array_equal(batches.Schedule(np.arange(50) % 7, num_docs=10, seed=1).rows(7), schedule.rows(7))


def noisy_example(rows=(0, 1, 2, 3), seed=0, **settings):
    docs = counting_docs()
    chosen = noise.NoiseSettings(**settings)
    return docs, noise.noisy_batch(docs, np.array(rows), chosen, MASK_ID, np.random.default_rng(seed))


@pytest.mark.parametrize("head_share", [0.0, 1.0])
def test_noise_is_what_drafting_meets(head_share):
    docs, batch = noisy_example(rows=range(12), head_share=head_share)
    row_N, column_N = batch.source_N // batch.ids_BL.shape[1], batch.source_N % batch.ids_BL.shape[1]
    position_N = batch.token_N - docs.starts[row_N]
    kind_N = batch.kinds_L[column_N]
    is_first_N = kind_N == noise.CLEAN
    # Token shift: the source stands one position before, in the same noisy block or in the clean block before.
    assert np.array_equal(batch.positions_BL[row_N, column_N], position_N - 1)
    assert np.array_equal(position_N % 32 == 0, is_first_N)
    assert np.all(position_N >= docs.prompt_lens[row_N])
    assert np.all(batch.ids_BL[row_N[~is_first_N], column_N[~is_first_N] + 1] == MASK_ID)
    # Nothing after the end is known, and every block's first token is.
    lengths = docs.lengths[np.arange(12), None]
    noisy = batch.kinds_L < noise.CLEAN
    behind = (batch.positions_BL >= lengths) & noisy
    assert np.all(batch.ids_BL[behind] == MASK_ID)
    first = (batch.positions_BL % 32 == 0) & ~behind & noisy
    assert np.all(batch.ids_BL[first] != MASK_ID)
    if head_share == 0.0:  # complementary: each maskable token is learnt exactly once
        learnt = batch.token_N[~is_first_N]
        assert len(np.unique(learnt)) == len(learnt)
    else:  # known head, unknown tail: the weight falls with the distance
        tail = kind_N == 0
        same = (np.diff(row_N[tail]) == 0) & (np.diff(position_N[tail]) == 1)
        ratio = (batch.weight_N[tail][1:] / batch.weight_N[tail][:-1])[same]
        is_beyond = np.isclose(ratio, 0.85 * 0.3, rtol=1e-4)
        assert np.allclose(ratio[~is_beyond], 0.85, rtol=1e-4)
        # What lies after the head's sub-block of 8 counts less, from its first place on.
        assert is_beyond.any() and np.all(position_N[tail][1:][same][is_beyond] % 8 == 0)


@pytest.mark.parametrize("head_share", [0.0, 1.0])
def test_training_logits_equal_inference_logits(head_share):
    """Every noisy block against one cached forward over [clean earlier blocks; the noisy block], as in drafting."""
    docs, batch = noisy_example(head_share=head_share)
    model = models.new_qwen2(SHAPE, 0).eval()
    mask = noise.block_mask(torch.from_numpy(batch.blocks_BL), torch.from_numpy(batch.kinds_L))
    with torch.no_grad():
        hidden = models.hidden_states(model, torch.from_numpy(batch.ids_BL), torch.from_numpy(batch.positions_BL), mask)
        trained = model.lm_head(hidden)
    checked = 0
    width = batch.ids_BL.shape[1]
    for row, kind in itertools.product(range(4), range(noise.NUM_VARIANTS + 1)):
        for block in np.unique(batch.blocks_BL[row][batch.kinds_L == kind]):
            if block >= noise._NO_BLOCK:
                continue
            columns = np.nonzero((batch.kinds_L == kind) & (batch.blocks_BL[row] == block))[0]
            start = docs.starts[row]
            lm = CachedLM(model)
            if block:
                lm.forward(docs.tokens[start : start + 32 * block].tolist(), block_size=32, keep=[])
                lm.commit(32 * int(block))
            expected = lm.forward(batch.ids_BL[row, columns].tolist(), block_size=32)
            torch.testing.assert_close(trained[row, columns], expected, atol=1e-4, rtol=1e-4)
            checked += 1
    assert checked > 20 and width == len(batch.kinds_L)


def test_soft_loss_is_the_divergence_when_all_tokens_are_kept():
    teacher, student = torch.randn(5, 9), torch.randn(5, 9)
    top = teacher.softmax(-1).topk(9, dim=-1)
    expected = torch.nn.functional.kl_div(
        student.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    log_student = student.log_softmax(-1).gather(-1, top.indices)
    torch.testing.assert_close(losses.soft_loss(log_student, top.values), expected, atol=1e-3, rtol=1e-3)
    log_teacher = teacher.log_softmax(-1).gather(-1, top.indices[:, :3])
    assert torch.all(losses.soft_loss(log_teacher, top.values[:, :3]).abs() < 1e-3)


def test_what_the_teacher_says_does_not_depend_on_how_many_it_is_asked_at_once():
    docs, teacher = counting_docs(), models.new_qwen2(SHAPE, seed=1)
    few, many = losses.teach(teacher, docs, top_k=4, num_docs=5), losses.teach(teacher, docs, top_k=4)
    assert torch.equal(few.ids_TK, many.ids_TK) and torch.allclose(few.probs_TK, many.probs_TK, atol=1e-3)
    assert few.probs_TK.any()


def batch_of(kind: str) -> batches.Batch:
    docs = counting_docs()
    if kind == "causal":
        return batches.causal_batch(docs, np.arange(7), END_ID, prompt_weight=0.1)
    return noise.noisy_batch(docs, np.arange(7), noise.NoiseSettings(), MASK_ID, np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["causal", "noisy"])
@pytest.mark.parametrize("size", [2, 3])
def test_the_losses_of_the_shares_add_up_to_the_loss_of_the_step(kind, size):
    """Their weights differ, so the mean of their means would be another number."""
    model, labels = models.new_qwen2(SHAPE, 0), losses.Labels(torch.from_numpy(counting_docs().tokens).long())

    def loss(batch: batches.Batch) -> float:
        inputs = {name: torch.from_numpy(array) for name, array in batch.arrays().items()}
        mask = noise.block_mask(inputs["blocks_BL"], inputs["kinds_L"]) if kind == "noisy" else None
        with torch.no_grad():
            hidden = models.hidden_states(model, inputs["ids_BL"], inputs.get("positions_BL"), mask)
            return float(losses.batch_loss(model, hidden, inputs, labels))

    whole = batch_of(kind)
    shares = [whole.share(rank, size) for rank in range(size)]
    assert len({float(share.weight_N.sum()) for share in shares}) == size and whole.share(0, 1) is whole
    assert sum(map(loss, shares)) == pytest.approx(loss(whole), rel=1e-5)
    with pytest.raises(UserError, match="--num_docs"):
        whole.share(0, 8)


def test_an_eagle3_head_has_a_map_of_words_where_it_drafts_some_alone():
    """vLLM 0.32 refuses a head of the whole vocabulary that has one."""
    some, whole = (
        Eagle3Training.extra_tensors(SimpleNamespace(words=words, _config={"vocab_size": 6}))
        for words in (torch.tensor([1, 2, 5]), torch.arange(6))
    )
    assert some["d2t"].tolist() == [1, 1, 3] and some["t2d"].tolist() == [False, True, True, False, False, True]
    assert whole == {}
