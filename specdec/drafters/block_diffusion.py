"""Block-diffusion drafters of the Fast-dLLM v2 kind: static drafts, FailFast, and the cost-aware policy.

`decoding/denoising.py` fills blocks, `decoding/stopping.py` ends drafts, `block_drafter.py` does both, live or from a
trace. Here is what a user chooses.

Sources: FailFast (arXiv 2512.20573), Algorithm 1 and Appendix E.
"""

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from specdec.decoding.chains import Chain
from specdec.decoding.cost_aware import Advice, CostAwareWindow, Outlook
from specdec.decoding.denoising import Denoising, are_blocks
from specdec.decoding.stopping import FailFastWindow, FixedWindow, Rule, Window
from specdec.drafters import flags
from specdec.drafters.advised import Advised
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec, number_text, threshold_name
from specdec.drafters.block_counts import published_passes
from specdec.drafters.block_drafter import BlockSettings, DllmDrafter, RecordedDllm, confidences_again
from specdec.drafters.flags import LENGTHS, PROBABILITIES, Flag, Options
from specdec.errors import UserError
from specdec.models.checkpoints import Role
from specdec.records.rounds import Round

DLLM_DRAFTER = Role(
    "dLLM drafter", "--dllm_dir", "dllm_drafter", "Efficient-Large-Model/Fast_dLLM_v2_1.5B", is_block_diffusion=True
)
PUBLISHED_WINDOW = 10  # what a name without a window means
PUBLISHED_RULE: Rule = "published"  # and without a rule

UNMASK_THRESHOLD = Flag("unmask_threshold", "dLLM unmask thresholds", (0.05,), ("drafter_thresholds",), PROBABILITIES)
FIRST_WINDOW = Flag("first_window", "FailFast's first windows", (PUBLISHED_WINDOW,), ("sweep_first_window",), LENGTHS)
RULES = {"choices": ("published", "strict")}
RULE = Flag("failfast_rule", "Algorithm 1 as published, or as its text reads", PUBLISHED_RULE, more=RULES)
PUBLISHED_BLOCK = 32  # where neither a flag nor the checkpoint says another
STATED_BY = {"block_size": ("bd_size", "block_size"), "small_block_size": ("small_block_size",)}  # in a config.json

BLOCK_SIZE = Flag(
    "block_size",
    f"dLLM block (default: the checkpoint's, or {PUBLISHED_BLOCK})",
    None,
    more={"type": flags.positive_int},
)
SMALL_BLOCK_SIZE = Flag("small_block_size", "dLLM sub-block", 8, more={"type": flags.positive_int})
SIZES = (BLOCK_SIZE, SMALL_BLOCK_SIZE)
REUSE_DRAFTS = Flag("reuse_drafts", "continue a draft from last round's rejected tail (Appendix E)")
NO_KVS = Flag("disable_reusing_drafter_kvs", "start every dLLM draft from an empty cache")
BLOCK_CACHE = Flag(
    "use_block_cache", "run a sub-block alone where it can be (approximate: may change drafts, never the output)"
)
BLOCK_CACHE_ALONE = "drafts with the sub-block cache are approximate, and no trace holds them"


@dataclass(frozen=True)
class BlockSpec(Spec):
    """What all of them have in common."""

    unmask_threshold: float

    role = DLLM_DRAFTER
    not_served = "it runs no block-diffusion drafter of this kind"

    @abstractmethod
    def window(self, budget: int, advice: Advice | None = None) -> Window:
        """The rule that ends a draft of which at most `budget` tokens are of use."""

    @property
    def chains_name(self) -> str:
        return f"dllm_{threshold_name(self.unmask_threshold)}"

    def drafter(self, setup: Setup) -> Drafter:
        lm = setup.lm
        if setup.sampler is not None:
            from specdec.decoding.sampled import SampledLM

            lm = SampledLM(lm, setup.sampler)
        return DllmDrafter(lm, self, settings_of(setup))

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        """Raises UserError where drafts are asked for that are not what the chains were made by."""
        if BLOCK_CACHE.of(setup.options):
            raise UserError(f"{BLOCK_CACHE_ALONE}: run it live, or leave out --use_block_cache")
        chains = trace.chains_of(self)
        blocks = chains.identity
        options = {**setup.options, **{flag.name: blocks[flag.name] for flag in SIZES}}
        recorded = Setup(trace.stop_ids, options, mask_id=blocks["mask_id"], advice=setup.advice)
        return RecordedDllm(trace, chains, self, settings_of(recorded))

    def published_passes(self, rounds: Sequence[Round], settings: Mapping[str, Any]) -> list[int]:
        return published_passes(rounds, settings)

    @classmethod
    def stated(cls, config: Mapping[str, Any]) -> Options:
        found: dict[str, Any] = {}
        for flag, names in STATED_BY.items():
            said = {config[name] for name in names if config.get(name) is not None}
            if len(said) > 1 or not all(type(size) is int and size >= 1 for size in said):
                what = ", ".join(f"{name} {config[name]!r}" for name in names if name in config)
                raise UserError(f"the {cls.title} drafter's config.json has {what}: not the size of a block")
            if said:
                found[flag] = said.pop()
        return found

    @classmethod
    def block_len(cls, options: Options) -> int:
        return int(BLOCK_SIZE.of(options) or PUBLISHED_BLOCK)

    def check_context(self, options: Options, context_len: int) -> None:
        if self.block_len(options) > context_len:
            raise UserError(f"--block_size {self.block_len(options)}: the models hold {context_len} positions")

    def chain_settings(self, setup: Setup) -> dict[str, Any]:
        return {"mask_id": setup.mask_id} | dict(
            zip((flag.name for flag in SIZES), sizes_of(setup.options), strict=True)
        )

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        """Of the sub-block cache, which is younger than many records, only those speak that were made with it."""
        cache = {"use_block_cache": True} if BLOCK_CACHE.of(setup.options) else {}
        return {"reuse_drafter_kvs": not NO_KVS.of(setup.options), **cache}


@dataclass(frozen=True)
class DllmStatic(BlockSpec):
    """A block-diffusion drafter that always drafts `draft_len` tokens."""

    draft_len: int

    name_pattern = "dllm_{unmask_threshold}_sf_{draft_len}"
    label_pattern = "dLLM {unmask_threshold}, static {draft_len}"
    swept = (UNMASK_THRESHOLD, flags.DRAFT_LEN)
    kind = "dllm_sf"
    title = "dLLM, static"
    hue = "#009E73"
    marker = "^"
    switch = "run_dllm_sf"
    is_static_baseline = True

    def window(self, budget: int, advice: Advice | None = None) -> Window:
        return FixedWindow(min(self.draft_len, budget))


@dataclass(frozen=True)
class FailFast(BlockSpec):
    """FailFast: Algorithm 1's tau, N_max and N over a block-diffusion drafter."""

    tau: float
    max_draft_len: int
    draft_step: int
    first_window: int = PUBLISHED_WINDOW
    rule: Rule = PUBLISHED_RULE

    name_pattern = "dllm_{unmask_threshold}_df_{tau}_{max_draft_len}_{draft_step}"
    label_pattern = "τ {tau}, N_max {max_draft_len}, N {draft_step}"
    swept = (UNMASK_THRESHOLD, flags.TAU, flags.MAX_DRAFT_LEN, flags.DRAFT_STEP, FIRST_WINDOW, RULE)
    kind = "failfast"
    title = "FailFast"
    hue = "#0072B2"
    marker = "o"
    is_headline = True
    not_served = "it has neither such a drafter nor FailFast's rule for a draft's length"

    @property
    def name(self) -> str:
        return super().name + self._unlike_published("_w{}", "_{}")

    @property
    def variant(self) -> str:
        return self._unlike_published("w{}", " {}").strip()

    def _unlike_published(self, window: str, rule: str) -> str:
        """These patterns, filled, of what is not as published."""
        window = "" if self.first_window == PUBLISHED_WINDOW else window.format(self.first_window)
        return window + ("" if self.rule == PUBLISHED_RULE else rule.format(self.rule))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        parts = re.fullmatch(r"(.+?)(?:_w(\d+))?(_strict)?", name)
        spec = super().parse(parts[1]) if parts else None
        if parts is None or spec is None:
            return None
        rule = "strict" if parts[3] else PUBLISHED_RULE
        return replace(spec, first_window=int(parts[2] or PUBLISHED_WINDOW), rule=rule)

    @property
    def label(self) -> str:
        is_usual = (self.unmask_threshold,) == UNMASK_THRESHOLD.default
        threshold = "" if is_usual else f"{number_text(self.unmask_threshold)} "
        return f"FailFast {threshold}{super().label}{self._unlike_published(', first window {}', ', {}')}"

    def chain_len(self, options: Options) -> int:
        """For the published rule in general N_max + N, and one more: where the last token is a block's first, which a
        commit pass makes known, the next denoising pass is needed too."""
        block_size = self.block_len(options)
        if self.rule == "strict":
            # Once a denoising pass, in each of which a whole sub-block may become known, the window grows.
            sizes = [*range(self.first_window, self.max_draft_len, self.draft_step), self.max_draft_len]
            small, last = int(SMALL_BLOCK_SIZE.of(options)), len(sizes) - 1
            most_known = max(size + small * (last - index) for index, size in enumerate(sizes))
            return most_known + most_known // (block_size - 1) + 1
        size = self.first_window
        # A window grows while fewer than N_max confidences are recorded; the first token of a block has none.
        while size < self.max_draft_len + 1 + size // block_size:
            size += self.draft_step
        return size + 1

    @property
    def first_asked(self) -> int:
        return self.first_window if self.rule == PUBLISHED_RULE else min(self.first_window, self.max_draft_len)

    def window(self, budget: int, advice: Advice | None = None) -> FailFastWindow:
        return FailFastWindow(self.first_window, self.tau, self.draft_step, self.max_draft_len, self.rule)

    def kept_settings(self, setup: Setup) -> dict[str, Any]:
        """Records of before, whose windows were tested after commit passes too, do not say when."""
        reuse = REUSE_DRAFTS.of(setup.options)
        return {**super().kept_settings(setup), "reuse_drafts": reuse, "window_tested": "after denoising"}

    def token_confidences(self, turn: Round, settings: Mapping[str, Any]) -> list[float | None]:
        """The published rule records every masked position of every pass: the passes are gone through again."""
        has_blocks = are_blocks(settings.get("block_size"), settings.get("small_block_size"))
        has_windows = min(self.first_window, self.draft_step, self.max_draft_len) > 0  # a file may say anything
        if self.rule != PUBLISHED_RULE or not (has_blocks and has_windows):
            return super().token_confidences(turn, settings)
        block_size, small_block_size = settings["block_size"], settings["small_block_size"]
        how = Denoising(self.unmask_threshold, block_size, small_block_size, -1, frozenset())
        return confidences_again(turn, self.window(turn.draft_len), how)


@dataclass(frozen=True)
class CostAware(Advised, BlockSpec):
    """A block-diffusion drafter that goes on while it pays."""

    name_pattern = "dllm_{unmask_threshold}_ca_{max_draft_len}_{pricing}"
    label_pattern = "cost-aware, N_max {max_draft_len}, {pricing}"
    swept = (UNMASK_THRESHOLD, *Advised.swept)
    kind = "cost_aware"
    title = "cost-aware"
    hue = "#D55E00"
    marker = "v"
    is_policy = True
    not_served = "it has neither such a drafter nor a draft length by cost"

    @classmethod
    def over(cls, chains_name: str, max_draft_len: int, pricing: str) -> Self | None:
        is_ours = chains_name.startswith("dllm_")
        return cls(threshold_of(chains_name), max_draft_len, pricing) if is_ours else None

    def window(self, budget: int, advice: Advice | None = None) -> Window:
        return CostAwareWindow(Outlook(self.required(advice)), min(self.max_draft_len, budget))


def settings_of(setup: Setup) -> BlockSettings:
    """What a run's flags say of blocks."""
    mask_id = -1 if setup.mask_id is None else setup.mask_id  # -1: of a model that is never run
    no_kvs, reuse, cache = (flag.of(setup.options) for flag in (NO_KVS, REUSE_DRAFTS, BLOCK_CACHE))
    return BlockSettings(mask_id, setup.stop_ids, *sizes_of(setup.options), not no_kvs, reuse, setup.advice, cache)


def sizes_of(options: Options) -> tuple[int, int]:
    """Positions of a block and of a sub-block."""
    return BlockSpec.block_len(options), int(SMALL_BLOCK_SIZE.of(options))


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One chain per prefix and unmask threshold; what two thresholds share is run once."""
    from specdec.decoding.block_recorder import DllmRecorder
    from specdec.models.pages import PagedLM

    settings = settings_of(recording.setup)
    recorder = DllmRecorder(PagedLM(recording.setup.lm, settings.block_size), recording.text, recording.batch)
    lengths = {threshold_of(name): length for name, length in wanted.items()}
    made = recorder.record(lengths, settings.denoising(0.0))
    return {name: made[threshold_of(name)] for name in wanted}


def threshold_of(chains_name: str) -> float:
    """The unmask threshold of chains called `BlockSpec.chains_name`. Example: `threshold_of("dllm_0.05") == 0.05`."""
    return float(chains_name.removeprefix("dllm_"))


def _check(options: Options) -> None:
    block_size, small = sizes_of(options)
    if block_size < 2:
        raise UserError("--block_size 1 is plain AR decoding: a block needs at least 2 positions")
    if block_size % small:
        raise UserError(f"--small_block_size {small} does not divide --block_size {block_size}")


FAMILY = Family(
    (DllmStatic, FailFast, CostAware),
    (
        *(flags.DRAFT_LEN, UNMASK_THRESHOLD, FIRST_WINDOW, flags.TAU, flags.MAX_DRAFT_LEN, flags.DRAFT_STEP),
        *(RULE, *SIZES, REUSE_DRAFTS, NO_KVS, BLOCK_CACHE),
    ),
    record,
    _check,
)
