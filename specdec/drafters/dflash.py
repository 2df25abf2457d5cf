"""DFlash and its kin: a head that reads some of the target's hidden states and fills a whole block in one pass, of
which a static length is verified, or what FailFast's rule or the cost-aware policy leaves by the slots' confidences.
Its tokens are the most probable ones, also where the target samples (then each is a point mass, which is lossless).

The block's length is the checkpoint's and never changed. `models/dflash.py` reads checkpoints, and
`models/dflash_network.py` runs them; a pass takes in what the target has confirmed since the last one, the prompt
included. Sources: DFlash (z-lab), JetSpec (arXiv 2606.18394), DSpark (arXiv 2607.05147); FailFast (arXiv 2512.20573).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from specdec.decoding.chains import Chain
from specdec.decoding.cost_aware import Advice, Outlook
from specdec.decoding.stopping import Draft, Passes, cut_after_stop
from specdec.drafters.advised import Advised
from specdec.drafters.base import Drafter, Family, Recorded, Recording, Setup, Spec
from specdec.drafters.chunks import InChunks
from specdec.drafters.flags import DRAFT_LEN, DRAFT_STEP, MAX_DRAFT_LEN, TAU, Options
from specdec.drafters.head_reader import HeadReader
from specdec.errors import UserError
from specdec.models.heads import Head, HeadRole, HeadSource

if TYPE_CHECKING:
    from specdec.models.dflash_trees import DflashTrees

Found = TypeVar("Found")
NAME = "dflash"
# No flags: how long the checkpoint's blocks are, and how many of their slots are drafts, by its config.json.
BLOCK, DRAFTS = "dflash_block", "dflash_drafts"


def _read(source: HeadSource) -> Head:
    from specdec.models.dflash import read_dflash

    return read_dflash(source)


DFLASH_HEAD = HeadRole("DFlash head", "--dflash_dir", "dflash_head", read=_read)


def check_block(options: Options, context_len: int) -> None:
    """Raise UserError for a checkpoint whose blocks are longer than any text that the models read."""
    block = options.get(BLOCK)
    if block is not None and block > context_len:
        raise UserError(f"the DFlash head's config.json has blocks of {block}: the models hold {context_len} positions")


class _Dflash(Spec):
    """What both have in common: which of a block's slots are verified."""

    role = DFLASH_HEAD
    priced_as = NAME
    chains_name = NAME
    is_default = False
    draws = False

    @classmethod
    def stated(cls, config: Mapping[str, Any]) -> Options:
        from specdec.models.dflash import block_size_of, num_drafts_of

        return {BLOCK: block_size_of(config), DRAFTS: num_drafts_of(config)}

    @classmethod
    def filled_block(cls, options: Options) -> int | None:
        size: int | None = options.get(BLOCK)
        return size

    def check_context(self, options: Options, context_len: int) -> None:
        check_block(options, context_len)
        if (known := options.get(DRAFTS)) is not None:
            self.check_drafts(known)

    def check_drafts(self, num_drafts: int) -> None:  # noqa: B027
        """Raise UserError for a spec that asks for more drafts than a block has."""

    @abstractmethod
    def cut(self, confidences: Sequence[float], advice: Advice | None = None) -> tuple[int, str]:
        """How many slots of these confidences are verified, and why no more."""

    def asked_len(self, draft_len: int) -> int:
        """The window that was asked for, where no stop token ended the draft."""
        return self.first_asked

    def drafter(self, setup: Setup) -> Drafter:
        return DflashDrafter(setup.lm, self, setup)

    def replayed(self, trace: Recorded, setup: Setup) -> Drafter:
        return RecordedDflash(trace, self, setup.advice)


@dataclass(frozen=True)
class DflashStatic(_Dflash):
    """The first `draft_len` tokens of a block, or all that it has."""

    draft_len: int

    name_pattern = "dflash_sf_{draft_len}"
    label_pattern = "DFlash, static {draft_len}"
    swept = (DRAFT_LEN,)
    kind = "dflash_sf"
    title = "DFlash, static"
    hue = "#6A3D9A"
    marker = "P"
    serving = {
        "vLLM": {"method": "dflash", "model": "{model}", "num_speculative_tokens": "{draft_len}"},
        "SGLang": {"algorithm": "DFLASH", "draft-model-path": "{model}", "num-draft-tokens": "{num_verified}"},
    }

    def cut(self, confidences: Sequence[float], advice: Advice | None = None) -> tuple[int, str]:
        return len(confidences), "length"

    def check_drafts(self, num_drafts: int) -> None:
        if self.draft_len > num_drafts:
            raise UserError(
                f"{self.name} asks for more than the {num_drafts} drafts of the checkpoint's block: a head is of no "
                "use at another length than it was trained for"
            )


@dataclass(frozen=True)
class DflashDynamic(_Dflash, InChunks):
    """A block under FailFast's stopping rule, at most all that it has."""

    name_pattern = "dflash_df_{tau}_{max_draft_len}_{draft_step}"
    label_pattern = "DFlash, dynamic τ {tau}, N_max {max_draft_len}, N {draft_step}"
    kind = "dflash_df"
    title = "DFlash, dynamic"
    hue = "#C51B7D"
    marker = "8"
    not_served = "it verifies blocks of one length"

    def cut(self, confidences: Sequence[float], advice: Advice | None = None) -> tuple[int, str]:
        for end in range(self.draft_step, len(confidences) + 1, self.draft_step):
            if min(confidences[:end]) < self.tau:
                return end, "low_confidence"
        return len(confidences), "max_len"

    def asked_len(self, draft_len: int) -> int:
        return self.whole_chunks(draft_len)


@dataclass(frozen=True)
class DflashCostAware(_Dflash, Advised):
    """What of a block is worth verifying; all that it has, where a verification costs the same at every length."""

    name_pattern = "dflash_ca_{max_draft_len}_{pricing}"
    label_pattern = "DFlash, cost-aware, N_max {max_draft_len}, {pricing}"
    kind = "dflash_ca"
    title = "DFlash, cost-aware"
    hue = "#7F7FC4"
    marker = "d"
    not_served = "it verifies blocks of one length"

    def cut(self, confidences: Sequence[float], advice: Advice | None = None) -> tuple[int, str]:
        outlook = Outlook(self.required(advice))
        outlook.read(confidences)
        return outlook.best_len, "low_gain" if outlook.best_len < len(confidences) else "max_len"

    def asked_len(self, draft_len: int) -> int:
        return draft_len


class BlockOfDrafts(Drafter):
    """Drafts by one pass, whatever is verified of it; what became of a draft shows in the next prefix."""

    def __init__(self, spec: _Dflash, stop_ids: frozenset[int], advice: Advice | None) -> None:
        self.spec, self.stop_ids, self.advice = spec, stop_ids, advice

    @abstractmethod
    def _block(self, prefix_ids: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
        """The first drafts of the block after a prefix, `limit` or more (or all; up to a stop token at least), and how
        sure each is."""

    def propose(self, prefix_ids: Sequence[int], budget: int) -> Draft:
        limit = min(budget, self.spec.chain_len({}))
        if limit < 1:
            return Draft(asked_len=self.spec.first_asked)
        tokens, confidences = self._block(prefix_ids, limit)
        tokens = cut_after_stop(tokens[:limit], self.stop_ids)
        draft_len, reason = self.spec.cut(confidences[: len(tokens)], self.advice)
        is_stopped = tokens[draft_len - 1] in self.stop_ids
        sure = confidences[:draft_len]
        return Draft(
            tokens[:draft_len],
            sure,
            Passes(denoise=1),
            "stop_token" if is_stopped else reason,
            list(sure),
            asked_len=draft_len if is_stopped else self.spec.asked_len(draft_len),
        )


class DflashReader(HeadReader["DflashTrees"]):
    """Asks its head for what comes after all that is known."""

    def asked_at(self, prefix_ids: Sequence[int]) -> tuple[Sequence[int], list[int]]:
        """The anchor and its position, once the head knows the text before it."""
        for features_LF in self.taken():
            self.network.read(features_LF)
        return prefix_ids[-1:], [len(prefix_ids) - 1]


class DflashDrafter(DflashReader, BlockOfDrafts):
    def __init__(self, network: DflashTrees, spec: _Dflash, setup: Setup) -> None:
        super().__init__(spec, frozenset(setup.stop_ids), setup.advice)
        self.attach(network)

    def _block(self, prefix_ids: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
        return self.network.on_host(self.network.draft(*self.asked_at(prefix_ids), limit)[0])


class RecordedDflash(BlockOfDrafts):
    """Read back from chains."""

    def __init__(self, trace: Recorded, spec: _Dflash, advice: Advice | None) -> None:
        super().__init__(spec, trace.stop_ids, advice)
        self._chains, self._prompt_len = trace.chains_of(spec).chains, len(trace.prompt_ids)
        whole = (len(one.tokens) for one in self._chains if one.tokens and one.tokens[-1] not in trace.stop_ids)
        if (num_drafts := next(whole, None)) is not None:
            spec.check_drafts(num_drafts)

    def _block(self, prefix_ids: Sequence[int], limit: int) -> tuple[list[int], list[float]]:
        chain = self._chains[len(prefix_ids) - self._prompt_len]
        return chain.tokens, chain.confidences


def blocks_along(
    recording: Recording, ask: Callable[[Sequence[int], Sequence[int]], Iterable[Found]]
) -> Iterator[Found]:
    """What `ask` gives of the block after each prefix of a text, of anchors and their positions, `batch` at a time. The
    target's features of a text are the same whoever drafted it."""
    from specdec.models.pages import in_groups

    text, network = recording.text, recording.setup.lm
    network.clear()
    if text.num_prefixes and text.prefix_lens[-1] > 1:
        network.read(recording.features_of(text.ids[: text.prefix_lens[-1] - 1], network.taps))
    for group in in_groups(text.prefix_lens, recording.batch):
        yield from ask([text.ids[at - 1] for at in group], [at - 1 for at in group])


def record(recording: Recording, wanted: Mapping[str, int]) -> dict[str, list[Chain]]:
    """One block per prefix. Chains are whole blocks whatever length is wanted, or end with a stop token."""
    network, stop_ids, made = recording.setup.lm, frozenset(recording.setup.stop_ids), list[Chain]()
    for block in blocks_along(recording, network.draft):
        tokens, confidences = network.on_host(block)
        tokens = cut_after_stop(tokens, stop_ids)
        made.append(Chain(tokens, confidences[: len(tokens)], [1] * len(tokens), [0], [0], []))
    return dict.fromkeys(wanted, made)


FAMILY = Family((DflashStatic, DflashDynamic, DflashCostAware), (DRAFT_LEN, TAU, MAX_DRAFT_LEN, DRAFT_STEP), record)
