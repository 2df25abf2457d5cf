"""What a head learns is what it drafts with: its training's network against the one that runs, draft for draft."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import save_model
from safetensors.torch import load_file
from toys import random_ids, toy_model

from plotting import training_curves
from specdec.commands import run
from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.plain import NoDrafter
from specdec.errors import UserError
from specdec.models.checkpoints import TARGET
from training import batches, decoder, heads, make_drafters, memory, models
from training.cli import run_command
from training.drafting import Lesson, labels_of
from training.features import tapped
from training.head_batches import head_batch
from training.loop import LoopSettings, OutOfTime, Place, settled
from training.losses import to_device
from training.make_heads import HEADS, head_training
from training.on_policy import HeldBack, read_curve
from training.tokenizer import load_tokenizer
from training.train_block_head import FAMILIES as BLOCK_FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")
LOOP = LoopSettings(num_steps=30, num_docs=6, learning_rate=3e-3)
SETTINGS = heads.HeadSettings(
    loop=LOOP, taps=(0, 2), num_layers=2, block_size=5, num_begins=4, markov_rank=8, num_drafts=4, soft_weight=0.5
)
MASK_ID, NUM_WORDS = 59, 62  # rows of the table after the tokenizer's last word are never written


@pytest.fixture
def lesson(tmp_path):
    """A target in a folder, and documents that count."""
    save_model(tmp_path / "target", toy_model("llama", 1, num_layers=5))
    target, tokenizer = models.load_model(tmp_path / "target"), load_tokenizer(tmp_path / "target")
    prompts = [[5 + (number + place) % 40 for place in range(6 + number % 3)] for number in range(12)]
    answers = [[5 + (number + len(prompts[number]) + place) % 40 for place in range(14)] for number in range(12)]
    return Lesson(target, tokenizer, batches.pack_documents(prompts, answers, 64))


def scrambled(made):
    """Weights that say something: what is zero or one at the start would hide mistakes."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            parameter.copy_(parameter.bfloat16().float())  # as it will be exported
    return made


def drafts_in_training(made, lesson, ids, begin):
    """The most probable tokens of the draft after a begin, where each is asked after the text's own tokens."""
    docs, rows = batches.pack_documents([ids[: begin + 1]], [ids[begin + 1 :]], 64), np.array([0])
    begins = np.array([[begin] * 2])
    inputs = head_batch(docs, rows, begins, made.slot_weights).arrays()
    inputs = {name: to_device(array, lesson.device) for name, array in inputs.items()}
    with torch.no_grad():
        pieces = list(made.pieces(inputs, tapped(lesson.target, inputs["ids_BL"], made.taps)))
    count, found = len(made.slot_weights), []
    for piece in pieces:
        log_NV = piece.log_NV[:count] if piece.slot is None else piece.log_NV[:1]
        if piece.slot is None:  # no drafter of blocks writes the mask
            log_NV[:, MASK_ID] = -torch.inf
        found += log_NV[:, :NUM_WORDS].argmax(-1).tolist()
    return found


@pytest.mark.parametrize("family", HEADS)
def test_a_head_drafts_what_its_training_says_and_changes_no_text(family, lesson, tmp_path):
    made = scrambled(head_training(family, lesson, SETTINGS, MASK_ID))
    heads.write_head(made, tmp_path / family, {})
    held_back = HeldBack(tmp_path / "target", ["word1", "word2"], 12)
    session = held_back.session(family, tmp_path / family, "cpu", len(made.slot_weights))
    spec, target = session.specs[0], session.models.of(TARGET)
    num_compared, seen = 0, set()
    for number in range(12):
        prefix, drafter = random_ids(number, 6 + number, exclude=[MASK_ID]), session.drafter(spec)
        drafter.reset(session.features_of(prefix[:-1], made.taps))
        drafted = drafter.propose(prefix, 99).tokens
        expected = drafts_in_training(made, lesson, [*prefix, *drafted, 7], len(prefix) - 1)
        assert drafted == expected[: len(drafted)]
        num_compared, seen = num_compared + len(drafted), seen | set(drafted)
    assert num_compared > 24 and len(seen) > 6
    prompt = random_ids(5, 9)
    plain = speculate(Target(target), NoDrafter(), prompt, max_new_tokens=12, stop_ids=session.stop_ids)
    own = speculate(Target(target), session.drafter(spec), prompt, max_new_tokens=12, stop_ids=session.stop_ids)
    assert text_of(own) == text_of(plain)


def whole_batch(made, docs):
    rows = np.arange(6)
    return head_batch(docs, rows, made.begins(docs, rows, np.random.default_rng(1)), made.slot_weights)


@pytest.mark.parametrize("family", HEADS)
def test_the_loss_of_a_step_is_the_sum_of_its_shares(family, lesson):
    made = head_training(family, lesson, SETTINGS, MASK_ID)
    batch, labels = whole_batch(made, lesson.docs), labels_of(lesson, 0.5)

    def loss(part):
        inputs = {name: to_device(array, lesson.device) for name, array in part.arrays().items()}
        features = tapped(lesson.target, inputs["ids_BL"], made.taps)
        return heads.step_loss(made, inputs, features, labels, heads.slot_weights(made, lesson.device)).detach()

    parts = [loss(batch.share(rank, 4)) for rank in range(4)]
    torch.testing.assert_close(sum(parts), loss(batch), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="--num_docs"):
        batch.share(0, 7)


def test_an_eagle3_head_says_its_taps_in_each_server_s_way(lesson):
    """vLLM read outputs as inputs: one layer lower."""
    config = head_training("eagle3", lesson, SETTINGS, None).config()
    assert config["eagle_config"] == {"eagle_aux_hidden_state_layer_ids": [0, 2]}
    assert config["eagle_aux_hidden_state_layer_ids"] == [1, 3]


def test_a_dspark_head_brings_what_deepspec_would_fill_at_random(lesson, tmp_path):
    """z-lab's readers take the table and the head from the target."""
    tables = {"embed_tokens.weight": "model.embed_tokens.weight", "lm_head.weight": "lm_head.weight"}
    for family in BLOCK_FAMILIES:
        heads.write_head(head_training(family, lesson, SETTINGS, MASK_ID), tmp_path / family, {})
        written = load_file(tmp_path / family / "model.safetensors")
        assert set(tables) & set(written) == (set(tables) if family == "dspark" else set())
    for own, targets in tables.items():
        assert torch.equal(written[own], lesson.target.state_dict()[targets].bfloat16())


@pytest.mark.parametrize(("family", "num_words"), [*((family, None) for family in HEADS), ("eagle3", 40)])
def test_a_head_learns_goes_on_where_it_stopped_and_is_looked_at(family, num_words, lesson, tmp_path, monkeypatch):
    settings = replace(SETTINGS, num_words=num_words)
    held_back = HeldBack(tmp_path / "target", ["word1 word2", "word3 word7 word8"], 8, num_looks=2)

    def trained(name, deadline=None):
        made = head_training(family, lesson, settings, MASK_ID)
        place = Place(tmp_path / name / "x.checkpoint.pt", lesson.device, deadline, log_every=5)
        return made, heads.train_head(family, made, lesson, settings, place, held_back)

    made, report = trained("one")
    assert report.losses[-1][1] < report.losses[0][1] and report.flops_a_token > 0
    curve = read_curve(tmp_path / "one" / f"{family}.curve.json")
    assert [look["step"] for look in curve] == [1, 15, 30]
    assert all(look["acceptance_length"] >= 1 and look["answers_that_differ"] == 0 for look in curve)
    assert 0 <= curve[-1]["accuracy"] <= 1 and curve[-1]["tokens"] == report.tokens
    with pytest.raises(OutOfTime):
        trained("two", deadline=0.0)
    again, told = trained("two")
    assert told.step == report.step and told.tokens == report.tokens
    for (name, one), two in zip(made.module.state_dict().items(), again.module.state_dict().values(), strict=True):
        torch.testing.assert_close(two, one, msg=name, rtol=1e-4, atol=1e-4)


def test_a_head_that_is_never_looked_at_has_no_curve(lesson, tmp_path):
    """Looks cost more than a short training: without them only training is paid for."""
    held_back = HeldBack(tmp_path / "target", ["word1 word2", "word3 word7 word8"], 8, num_looks=0)
    made, place = head_training("dflash", lesson, SETTINGS, MASK_ID), Place(tmp_path / "x.checkpoint.pt", lesson.device)
    heads.train_head("dflash", made, lesson, SETTINGS, place, held_back)
    assert read_curve(tmp_path / "dflash.curve.json") == []


def test_a_budget_is_of_tokens_operations_or_time(lesson):
    tokens_a_step = lesson.docs.tokens_a_step(LOOP.num_docs)
    assert tokens_a_step == 6 * 21
    assert settled(replace(LOOP, num_tokens=1260.0), tokens_a_step, 50.0).num_steps == 10
    assert settled(replace(LOOP, num_flops=126_000.0), tokens_a_step, 50.0).num_steps == 20
    assert settled(replace(LOOP, num_seconds=5.0), tokens_a_step, 50.0).num_steps > 10**5
    assert settled(LOOP, tokens_a_step, 50.0) == LOOP


def text_of(turns):
    return [token for turn in turns for token in turn.emitted_tokens]


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs make_drafters for a target of five layers and twelve prompts; returns the exit status and what it said."""
    save_model(tmp_path / "target", toy_model("llama", 1, num_layers=5))
    prompts = [{"prompt": f"word{number} word{number + 7}"} for number in range(12)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    usual = ["--target_dir", "target", "--prompt_file", "prompts.jsonl", "--work_dir", "work", "--device", "cpu"]
    usual += ["--max_new_tokens", "16", "--mask_token", "word59", "--num_docs", "4", "--head_steps", "2"]
    usual += ["--block_size", "5", "--head_layers", "1", "--held_back", "2", "--num_looks", "1", "--taps", "0", "2"]
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()  # the bars of saving the target are not the command's

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["make_drafters", *usual, *flags])
        status = run_command(make_drafters.MODULE, make_drafters.main)
        return status, capsys.readouterr()

    return run


MISTAKES = {
    "of which 0 to 3 can be tapped": ["--taps", "0", "4"],
    "in their order": ["--taps", "2", "0"],
    "at most 16 tokens": ["--block_size", "17"],
    "too few to hold 9 back": ["--held_back", "9"],
    "--held_back 0": ["--held_back", "0"],
    "exclude each other": ["--budget_tokens", "5", "--budget_flops", "5"],
    "--budget_tokens 0": ["--budget_tokens", "0"],
    "names dflash twice": ["--families", "dflash", "dflash"],
    "cannot cut 9 layers": ["--head_layers", "9"],
    "--num_variants -1": ["--num_variants", "-1"],
    "the stages are answers, dflash": ["--stop_after", "eagle3"],
    "the tokenizer has no mask token": ["--mask_token", "x"],
    "--markov_rank 0": ["--markov_rank", "0"],
    "--decay 7: give more than 0 and at most 1": ["--decay", "7"],
    "--soft_weight nan: give 0 or more": ["--soft_weight", "nan"],
    "--draft_vocab_size 0: give at least 2": ["--draft_vocab_size", "0"],
    "--draft_vocab_size 99999: the target has": ["--draft_vocab_size", "99999"],
    "cannot cut 99 layers": ["--families", "ar", "--num_layers", "99"],
    "File exists (prompts.jsonl)": ["--work_dir", "prompts.jsonl"],
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_before_anything_is_made(mistake, command, tmp_path):
    status, said = command("--families", "dflash", *MISTAKES[mistake])
    assert status == 2 and mistake in said.err and said.err.count("\n") == 1
    assert not list(tmp_path.glob("work/*"))


class Counting:
    """Stands in for a model that has something to say: a toy of random weights only repeats itself."""

    def answers(self, prompts):
        yield {number: list(range(50, 4, -1))[: 10 + number % 6] for number in range(len(prompts))}


def test_heads_are_made_once_and_not_of_other_settings(command, tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "BatchDecoder", lambda *_: Counting())
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1e5)
    status, said = command("--families", "dflash", "--soft_weight", "0")
    assert status == 2 and "GB are free" in said.err and not (tmp_path / "work" / "dflash").exists()
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1e12)
    status, said = command("--families", "dflash", "eagle3", "--budget_tokens", "60")
    assert status == 0, said.err
    status, later = command("--families", "ar", "--budget_tokens", "60", "--num_layers", "1")
    assert status == 0, later.err  # of the same answers
    made = json.loads((tmp_path / "work" / "dflash" / "training.json").read_text())
    assert made["family"] == "dflash" and made["flops"] > 0 and made["curve"][-1]["questions"] == 2
    assert "acceptance_length" in said.err and "--dflash_dir work/dflash --drafters plain dflash" in said.err
    lines = [*said.err.splitlines(), *later.err.splitlines()]
    told = [line.partition(" failfast.py ")[2] for line in lines if " failfast.py " in line]
    assert len(told) == 3
    for flags in told:
        run.parse_args(flags.split())  # what it says to run can be run
    before = (tmp_path / "work" / "dflash" / "model.safetensors").read_bytes()
    status, said = command("--families", "dflash", "--budget_tokens", "60", "--decay", "0.5")
    assert status == 2 and "made with other settings (decay" in said.err
    assert (tmp_path / "work" / "dflash" / "model.safetensors").read_bytes() == before


def test_a_block_is_no_longer_than_the_documents(lesson):
    with pytest.raises(UserError, match="the longest answer has 14 tokens"):
        head_training("dflash", lesson, replace(SETTINGS, block_size=15), MASK_ID)


def test_a_target_of_few_layers_has_no_room_for_the_usual_taps(lesson):
    for family, wanted in (("eagle3", "three taps"), ("dflash", "4 even taps")):
        with pytest.raises(UserError, match=wanted):
            head_training(family, lesson, replace(SETTINGS, taps=None, num_layers=4), MASK_ID)


def test_a_curve_is_read_from_a_head_or_from_several(tmp_path, capsys):
    look = {"tokens": 2e6, "questions": 4, "acceptance_length": 2.5, "accuracy": 0.5}
    files = {"training.json": {"family": "dflash", "curve": [look]}, "dspark.curve.json": [look]}
    files |= {"many.json": {"heads": {"mine": {"curve": [look, look]}}}, "none.json": {"curve": []}, "odd.json": [1]}
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert training_curves.read_curves(tmp_path / "training.json") == {"dflash": [look]}
    assert training_curves.read_curves(tmp_path / "dspark.curve.json") == {"dspark": [look]}
    assert training_curves.read_curves(tmp_path / "many.json") == {"mine": [look, look]}
    work = tmp_path / "work"
    for name, content in (("ar_drafter", {"losses": [[1, 2.0]]}), ("dflash", {})):
        (work / name).mkdir(parents=True)
        (work / name / "training.json").write_text(json.dumps(content))
    for name in ("none.json", "odd.json", "nowhere.json", "work", "work/ar_drafter"):
        assert training_curves.main([str(tmp_path / name), "--out", str(tmp_path / "x.png")]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "irectory" not in error.replace("No such file or directory", "")
    head = work / "dflash" / "training.json"
    head.write_text((tmp_path / "training.json").read_text())
    assert training_curves.files_in(head.parent) == training_curves.files_in(work) == [head]
    assert training_curves.main([str(work), "--out", str(tmp_path / "x.png")]) == 0
