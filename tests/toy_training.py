"""Trainings small enough for tests: a tiny shape, texts and documents made up here, and each kind of training."""

import numpy as np

from training import batches, models
from training.drafting import Lesson
from training.loop import LoopSettings, Place
from training.train_ar_drafter import ArSettings, train_ar_drafter
from training.train_dllm_drafter import DllmSettings, train_dllm_drafter
from training.train_target import TargetSettings, train_target

SHAPE = models.Shape(vocab_size=300, hidden_size=32, intermediate_size=64, num_layers=4, num_heads=4, num_kv_heads=2)
MASK_ID, END_ID = 3, 2
LOOP = LoopSettings(num_steps=40, num_docs=8, learning_rate=5e-3)
TEXTS = [f"Tom has {n} apples. He buys {n + 3} more apples, so he has \\boxed{{{2 * n + 3}}}." for n in range(60)]


def counting_docs(num_docs: int = 12) -> batches.TokenDocs:
    """Prompts of 20 to 66 tokens and answers that count on from them, 20 to 89 tokens."""
    rng = np.random.default_rng(0)
    prompts, answers = [], []
    for _ in range(num_docs):
        start, num_prompt, num_answer = rng.integers(10, 100), rng.integers(20, 67), rng.integers(20, 90)
        prompts.append([int(start + i % 40) for i in range(num_prompt)])
        answers.append([int(start + i % 40) for i in range(num_prompt, num_prompt + num_answer)] + [END_ID])
    return batches.pack_documents(prompts, answers, 512)


def lesson(tokenizer) -> Lesson:
    """A lesson without files."""
    return Lesson(models.new_qwen2(SHAPE, 0), tokenizer, counting_docs())


def train_one(kind: str, tokenizer, place: Place, loop: LoopSettings = LOOP):
    """One of the three trainings on the counting documents."""
    if kind == "target":
        return train_target(counting_docs(), tokenizer, TargetSettings(shape=SHAPE, loop=loop), place)
    if kind == "ar":
        return train_ar_drafter(lesson(tokenizer), ArSettings(num_layers=2, loop=loop), place)
    return train_dllm_drafter(lesson(tokenizer), MASK_ID, DllmSettings(num_layers=2, loop=loop), place)
