"""Laws: the exact distribution of a tiny target's next tokens, drafts of real drafters over tiny models, and what comes
out when many samples are judged at once. Not tests; test_sampling_laws.py uses it.

The models are real ones of four tokens, asked without a cache and only once for the same tokens. Drafts are made by the
program's own drafters: greedy ones have one draft after a prefix; of an AR drafter that samples all drafts are found
with their probabilities, by telling it what it draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from dflash_heads import FULL, loaded_dflash, toy_dflash
from dflash_heads import taught as taught_dflash
from heads import features_of, loaded_head, taught, toy_head
from reference import full_logits
from toys import perturbed, toy_model

from specdec.decoding import sampling
from specdec.decoding.sampled import SampledLM
from specdec.decoding.sampling import Sampler, Warp
from specdec.decoding.stopping import Draft
from specdec.drafters.ar import ArDrafter, ArDynamic, ArStatic, SampledArDrafter
from specdec.drafters.base import Setup
from specdec.drafters.block_diffusion import BlockSettings, DllmDrafter, DllmStatic, FailFast
from specdec.drafters.dflash import DflashDrafter, DflashDynamic, DflashStatic
from specdec.drafters.eagle3 import Eagle3Drafter, Eagle3Dynamic, Eagle3Static
from specdec.drafters.hybrid import Hybrid
from specdec.drafters.plain import NoDrafter
from specdec.drafters.suffix import Suffix
from specdec.models.dflash_trees import DflashTrees
from specdec.models.eagle3_network import Eagle3Network
from specdec.models.lm import CachedLM

NUM_WORDS, NUM_TOKENS = 4, 3
MASK_ID = NUM_WORDS
PROMPT = (1, 3, 0)
TEXTS = list(itertools.product(range(NUM_WORDS), repeat=NUM_TOKENS))
SPECS = {
    "plain": None,
    "ar_sf": ArStatic(2),
    "ar_df": ArDynamic(0.35, 3, 1),
    "dllm_sf": DllmStatic(0.4, 3),
    "failfast": FailFast(0.4, 0.4, 5, 1, first_window=2),
    "eagle3_sf": Eagle3Static(2),
    "eagle3_df": Eagle3Dynamic(0.35, 3, 1),
    "dflash_sf": DflashStatic(2),
    "dflash_df": DflashDynamic(0.5, 3, 1),
    "suffix": Suffix(8, factor=3.0, floor=0.0),
    "hybrid": Hybrid("suffix_8_f3.0_p0.0", "ar_None_sf_2"),
}
MODEL_FREE = ("suffix",)  # whose drafts are never drawn
POOL = 16  # drafts of a dLLM that samples, after the same prefix: the rule for them holds whatever they are


class MemoLM(CachedLM):
    """A CachedLM that keeps no keys and values, but what it has answered."""

    def __init__(self, model: torch.nn.Module, vocab_size: int | None = None) -> None:
        super().__init__(model, vocab_size)
        self._answers: dict[tuple, torch.Tensor] = {}

    def _run(self, tokens: list[int], block_size: int, keep: Sequence[int] | None) -> torch.Tensor:
        if self._parents is not None:  # each path of a tree alone
            rows = []
            for row, parent in enumerate(self._parents):
                rows.append([*(rows[parent] if parent >= 0 else ()), tokens[row]])
            return torch.cat([self._row(path, 1)[-1:] for path in rows])
        return self._row(tokens, block_size) if keep is None else self._row(tokens, block_size)[list(keep)]

    def _row(self, tokens: list[int], block_size: int) -> torch.Tensor:
        key = (tuple(self.tokens), tuple(tokens), block_size)
        if key not in self._answers:
            logits_LV = full_logits(self.model, [*self.tokens, *tokens], block_size)
            self._answers[key] = logits_LV[self.length :, : self.vocab_size].float()
        return self._answers[key]


@cache
def tiny_models() -> dict[str, MemoLM]:
    """A target of four words, an AR drafter that nearly agrees, and a dLLM that has a mask too."""
    target = toy_model("qwen2", 5, scale=0.6, vocab_size=NUM_WORDS + 1)
    return {
        "target": MemoLM(target, NUM_WORDS),
        "ar": MemoLM(perturbed(target, 6, 0.6), NUM_WORDS),
        "dllm": MemoLM(toy_model("qwen2", 7, scale=1.0, vocab_size=NUM_WORDS + 1)),
    }


@cache
def tiny_head() -> Eagle3Network:
    """An EAGLE-3 head that has learnt a little of the target."""
    lm = tiny_models()["target"]
    head = toy_head("safeailab", lm.model, 8)
    return loaded_head(taught(head, lm.model, [[*PROMPT, *text] for text in TEXTS[::9]], epochs=2), lm)


class FedDrafter(Eagle3Drafter):
    """An EAGLE-3 drafter that is given the features of every prefix anew."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        self.reset(features_of(tiny_models()["target"].model, prefix_ids[:-1], self.taps))
        return super().propose(prefix_ids, budget)


@cache
def tiny_block_head() -> DflashTrees:
    """A DFlash head with a Markov head that has learnt a little of the target; its blocks begin at the anchor."""
    lm = tiny_models()["target"]
    how = {"taps": (0,), "block_size": 3, "kinds": (FULL,), "mask_id": MASK_ID, "extra": {"markov_rank": 8}}
    head = taught_dflash(
        toy_dflash("Qwen3DSparkModel", lm.model, 9, **how),
        lm.model,
        [[*PROMPT, *text] for text in TEXTS[::9]],
        steps=40,
    )
    with TemporaryDirectory() as folder:
        return loaded_dflash(Path(folder), head, lm)


class FedBlockDrafter(DflashDrafter):
    """A DFlash drafter that is given the features of every prefix anew."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        self.reset(features_of(tiny_models()["target"].model, prefix_ids[:-1], self.taps))
        return super().propose(prefix_ids, budget)


def make_drafter(kind: str, sampler: Sampler | None) -> object:
    """A drafter of SPECS over the tiny models; it draws if it has a sampler."""
    if kind == "plain":
        return NoDrafter()
    if kind.startswith("eagle3"):
        return FedDrafter(tiny_head(), SPECS[kind], ())
    if kind.startswith("dflash"):
        return FedBlockDrafter(tiny_block_head(), SPECS[kind], Setup(()))
    if kind in ("hybrid", *MODEL_FREE):
        return SPECS[kind].drafter(Setup((), lm=tiny_models()["ar"], sampler=sampler))
    spec, lm = SPECS[kind], tiny_models()["ar" if kind.startswith("ar") else "dllm"]
    lm = lm if sampler is None else SampledLM(lm, sampler)
    if isinstance(spec, ArStatic | ArDynamic):
        return (ArDrafter if sampler is None else SampledArDrafter)(lm, spec, ())
    return DllmDrafter(lm, spec, BlockSettings(MASK_ID, (), block_size=4, small_block_size=4, reuse_drafts=True))


def target_rows(warp: Warp, text: Sequence[int], draft: Sequence[int]) -> torch.Tensor:
    """The target's distributions after prompt + text, and after each drafted token."""
    lm, prefix = tiny_models()["target"], [*PROMPT, *text]
    lm.rollback(0)
    return warp.probabilities(lm.forward([*prefix, *draft], keep=range(len(prefix) - 1, len(prefix) + len(draft))))


@cache
def exact_law(warp: Warp) -> torch.Tensor:
    """The probability of each of TEXTS after PROMPT."""
    chances = []
    for text in TEXTS:
        p_KV = target_rows(warp, (), text)
        chances.append(torch.prod(torch.stack([p_KV[i, token].double() for i, token in enumerate(text)])))
    return torch.stack(chances)


class MustDraw(Exception):
    """A scripted sampler has come to the end of its script: here are the rows that it would draw from."""

    def __init__(self, p_KV: torch.Tensor) -> None:
        super().__init__()
        self.p_KV = p_KV


class ScriptedSampler(Sampler):
    """Draws what it is told, and knows how probable that was."""

    def __init__(self, warp: Warp, script: Sequence[tuple[int, ...]]) -> None:
        super().__init__(warp, "")
        self.script, self.chance = list(script), 1.0

    def draw(self, p_KV: torch.Tensor) -> torch.Tensor:
        if not self.script:
            raise MustDraw(p_KV)
        drawn_K = torch.tensor(self.script.pop(0))
        self.chance *= float(p_KV.double().gather(1, drawn_K[:, None]).prod())
        return drawn_K


def all_drafts(warp: Warp, draft: Callable[[Sampler], Draft]) -> list[tuple[Draft, float]]:
    """Every draft that can come out of what a sampler draws, with its probability."""
    found, open_scripts = [], [[]]
    while open_scripts:
        script = open_scripts.pop()
        sampler = ScriptedSampler(warp, script)
        try:
            made = draft(sampler)
            found.append((made, sampler.chance))
        except MustDraw as stop:
            choices = [row.nonzero().flatten().tolist() for row in stop.p_KV]
            open_scripts += [[*script, choice] for choice in itertools.product(*choices)]
    assert abs(sum(chance for _, chance in found) - 1) < 1e-5
    return found


def drafts_behind(kind: str, is_sampled: bool, warp: Warp, text: Sequence[int]) -> list[tuple[Draft, float]]:
    """The drafts after prompt + text, with their probabilities."""

    def draft(sampler: Sampler | None) -> Draft:
        drafter = make_drafter(kind, sampler)
        drafter.reset()
        return drafter.propose([*PROMPT, *text], 3)

    if not is_sampled:
        return [(draft(None), 1.0)]
    if kind.startswith("ar") or kind == "hybrid":
        return all_drafts(warp, draft)
    return [(draft(Sampler(warp, f"{text} {number}")), 1 / POOL) for number in range(POOL)]


@dataclass
class Crowd:
    """Many samples at once: their texts so far (-1 where there is no token yet), and the random numbers of all."""

    texts_BT: torch.Tensor
    generator: torch.Generator

    @classmethod
    def of(cls, num_samples: int, seed: int) -> Crowd:
        texts_BT = torch.full((num_samples, NUM_TOKENS + 4), -1)
        return cls(texts_BT, torch.Generator().manual_seed(seed))

    def uniforms(self, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def counts(self) -> torch.Tensor:
        """How often each of TEXTS came out."""
        places = torch.tensor([NUM_WORDS**2, NUM_WORDS, 1])
        return torch.bincount((self.texts_BT[:, :NUM_TOKENS] * places).sum(1), minlength=len(TEXTS))


def come_out(kind: str, is_sampled: bool, warp: Warp, *, num_samples: int, seed: int) -> torch.Tensor:
    """Counts of TEXTS in `num_samples` answers, judged by `sampling.judge` round after round."""
    crowd = Crowd.of(num_samples, seed)
    for text in itertools.chain.from_iterable(itertools.product(range(NUM_WORDS), repeat=n) for n in range(NUM_TOKENS)):
        is_here_B = crowd.texts_BT[:, len(text)] == -1  # all rounds of shorter texts are over
        for at, token in enumerate(text):
            is_here_B &= crowd.texts_BT[:, at] == token
        here_B = is_here_B.nonzero().flatten()
        if len(here_B):
            play_round(crowd, here_B, text, drafts_behind(kind, is_sampled, warp, text), warp)
    return crowd.counts()


def play_round(
    crowd: Crowd, here_B: torch.Tensor, text: tuple[int, ...], drafts: list[tuple[Draft, float]], warp: Warp
) -> None:
    """One round of the samples `here_B`, whose text so far is `text`; each gets one of the drafts by its chance."""
    weights_D = torch.tensor([chance for _, chance in drafts], dtype=torch.float64)
    chosen_B = torch.multinomial(weights_D, len(here_B), replacement=True, generator=crowd.generator)
    for length in sorted({len(draft.tokens) for draft, _ in drafts}):
        group = [index for index, (draft, _) in enumerate(drafts) if len(draft.tokens) == length]
        place_D = torch.full((len(drafts),), -1)
        place_D[group] = torch.arange(len(group))
        mine_B = here_B[place_D[chosen_B] >= 0]
        which_B = place_D[chosen_B][place_D[chosen_B] >= 0]
        tokens = torch.tensor([drafts[i][0].tokens for i in group], dtype=torch.long).reshape(len(group), length)
        rows = torch.stack([target_rows(warp, text, drafts[i][0].tokens) for i in group])
        q = None if drafts[group[0]][0].drawn_from is None else torch.stack([drafts[i][0].drawn_from for i in group])
        q_BLV = None if q is None else q[which_B]
        uniforms_BK = crowd.uniforms(len(mine_B), length + 1)
        found = sampling.judge(rows[which_B], tokens[which_B], q_BLV, uniforms_BK)
        _append(crowd.texts_BT, mine_B, len(text), tokens[which_B], found)


def _append(
    texts_BT: torch.Tensor, mine_B: torch.Tensor, begin: int, draft_BL: torch.Tensor, found: sampling.Judgement
) -> None:
    emitted_BK = torch.nn.functional.pad(draft_BL, (0, 1))
    emitted_BK[torch.arange(len(mine_B)), found.accepted_len_B] = found.next_token_B
    is_emitted_BK = torch.arange(emitted_BK.shape[1]) <= found.accepted_len_B[:, None]
    texts_BT[mine_B, begin : begin + emitted_BK.shape[1]] = emitted_BK.where(is_emitted_BK, torch.tensor(-1))


def p_value(counts: torch.Tensor, law: torch.Tensor) -> float:
    """Of Pearson's chi-square test that `counts` follow `law`; 0.0 where something impossible has come out.

    Outcomes expected fewer than five times count as one.
    """
    counts, expected = counts.double(), law.double() / law.double().sum() * counts.sum()
    if (counts[expected == 0] > 0).any():
        return 0.0
    is_rare = expected < 5
    observed, wanted = counts[~is_rare].tolist(), expected[~is_rare].tolist()
    if expected[is_rare].sum() > 0:
        observed.append(float(counts[is_rare].sum()))
        wanted.append(float(expected[is_rare].sum()))
    statistic = sum((o - w) ** 2 / w for o, w in zip(observed, wanted, strict=True))
    half_freedom = torch.tensor((len(wanted) - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(half_freedom, torch.tensor(statistic / 2, dtype=torch.float64)))
