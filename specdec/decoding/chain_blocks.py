"""A chain in the making, of passes whose outcomes are known; `block_recorder` runs them. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from specdec.decoding.chains import Chain
from specdec.decoding.denoising import Blocks, Denoising

State = tuple[tuple[int, ...], tuple[int | None, ...]]  # pages, and the block after them, None where masked


@dataclass(frozen=True)
class Answer:
    """What a pass over a state gave: a token and its probability per masked position, or for a block that is all
    known the one after it, and the block's page."""

    masked: list[int]
    tokens: list[int]
    confidences: list[float]
    page: int | None = None


class ChainBlocks(Blocks):
    """Blocks that note what a chain keeps of every pass."""

    def __init__(
        self, prefix_ids: Sequence[int], how: Denoising, path: tuple[int, ...], first: tuple[int, float] | None
    ) -> None:
        self.path = path
        self.unmasked_by: dict[int, int] = {}
        self.is_commit: list[int] = []
        self.num_recorded: list[int] = []
        super().__init__(prefix_ids, how, len(path) * how.block_size, first)

    @property
    def state(self) -> State:
        return self.path, tuple(self.block)

    def take(self, answer: Answer) -> None:
        """One pass, whose outcome is known."""
        if answer.page is None:
            self.denoised(answer.masked, answer.tokens, answer.confidences)
        else:
            self.path += (answer.page,)
            self.committed(answer.tokens[0], answer.confidences[0])
        self.is_commit.append(int(answer.page is not None))
        self.num_recorded.append(len(answer.masked))

    def chain(self) -> Chain:
        confidences = self.confidences(self.num_known)
        passes = [self.unmasked_by[self.prefix_len + i] for i in range(self.num_known)]
        recorded = list(self.pass_confidences)
        return Chain(self.tokens(self.num_known), confidences, passes, self.is_commit, self.num_recorded, recorded)

    def _unmask(self, position: int, token: int, confidence: float) -> None:
        super()._unmask(position, token, confidence)
        self.unmasked_by[position] = self.passes.total
