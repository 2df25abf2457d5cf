"""What a head learns is what it drafts with: its training's network against the one that runs, draft for draft."""

import numpy as np
import pytest
import torch
from families import save_model
from toys import random_ids, toy_model

from specdec.decoding.loop import speculate
from specdec.decoding.target import Target
from specdec.drafters.plain import NoDrafter
from specdec.models.checkpoints import TARGET
from training import batches, heads, models
from training.drafting import Lesson
from training.features import tapped
from training.head_batches import head_batch
from training.losses import to_device
from training.loop import LoopSettings, Place
from training.make_heads import HEADS, head_training
from training.on_policy import HeldBack
from training.tokenizer import load_tokenizer

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


def text_of(turns):
    return [token for turn in turns for token in turn.emitted_tokens]
