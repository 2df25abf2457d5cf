"""Drafter specs: which drafter, how long a draft. A sum type, and its names on disk."""

from dataclasses import dataclass

from specdec.errors import UserError


def number_text(value: float) -> str:
    """A threshold in a name: as short as it can be without two values sharing a name; 0.45, 1, 0.3000001."""
    return repr(float(value)).removesuffix(".0")


@dataclass(frozen=True)
class Plain:
    """Plain decoding: nothing is drafted. The measured baseline."""

    @property
    def name(self) -> str:
        return "plain"


@dataclass(frozen=True)
class ArStatic:
    """An AR drafter that always drafts `draft_len` tokens."""

    draft_len: int

    @property
    def name(self) -> str:
        return f"ar_None_sf_{self.draft_len}"


@dataclass(frozen=True)
class ArDynamic:
    """An AR drafter under FailFast's stop rule: chunks of `draft_step` tokens, at most `max_draft_len`."""

    confidence_threshold: float
    max_draft_len: int
    draft_step: int

    @property
    def name(self) -> str:
        return f"ar_None_df_{number_text(self.confidence_threshold)}_{self.max_draft_len}_{self.draft_step}"


@dataclass(frozen=True)
class DllmStatic:
    """A block-diffusion drafter that always drafts `draft_len` tokens."""

    unmask_threshold: float
    draft_len: int

    @property
    def name(self) -> str:
        return f"dllm_{number_text(self.unmask_threshold)}_sf_{self.draft_len}"


@dataclass(frozen=True)
class FailFast:
    """FailFast (arXiv 2512.20573): Algorithm 1's tau, N_max and N over a block-diffusion drafter."""

    unmask_threshold: float
    confidence_threshold: float
    max_draft_len: int
    draft_step: int
    first_window: int = 10
    rule: str = "published"

    @property
    def name(self) -> str:
        return (
            f"dllm_{number_text(self.unmask_threshold)}_df_{number_text(self.confidence_threshold)}"
            f"_{self.max_draft_len}_{self.draft_step}"
        )


@dataclass(frozen=True)
class CostAware:
    """A block-diffusion drafter that goes on while it pays: `engine` ("TARGET@PROFILE") says what a pass and a
    verification cost, at most `max_draft_len` tokens are drafted."""

    unmask_threshold: float
    max_draft_len: int
    engine: str

    @property
    def name(self) -> str:
        return f"dllm_{number_text(self.unmask_threshold)}_ca_{self.max_draft_len}_{self.engine}"


DrafterSpec = Plain | ArStatic | ArDynamic | DllmStatic | FailFast | CostAware
KINDS = {
    "plain": Plain,
    "ar_sf": ArStatic,
    "ar_df": ArDynamic,
    "dllm_sf": DllmStatic,
    "failfast": FailFast,
    "cost_aware": CostAware,
}
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != "cost_aware")  # what needs no calibration


def parse_drafter_name(name: str) -> DrafterSpec:
    """The spec of a name on disk; first window and rule, which no name holds, have their defaults.

    Example: `parse_drafter_name("dllm_0.9_sf_8") == DllmStatic(0.9, 8)`. Raises UserError.
    """
    try:
        match name.split("_"):
            case ["plain"]:
                return Plain()
            case ["ar", "None", "sf", draft_len]:
                return ArStatic(int(draft_len))
            case ["ar", "None", "df", tau, longest, step]:
                return ArDynamic(float(tau), int(longest), int(step))
            case ["dllm", threshold, "sf", draft_len]:
                return DllmStatic(float(threshold), int(draft_len))
            case ["dllm", threshold, "df", tau, longest, step]:
                return FailFast(float(threshold), float(tau), int(longest), int(step))
            case ["dllm", threshold, "ca", longest, *engine] if engine:
                return CostAware(float(threshold), int(longest), "_".join(engine))
    except ValueError:
        pass
    raise UserError(f"{name!r} names no drafter: expected for example ar_None_sf_8 or dllm_0.05_df_0.45_60_10")


_THRESHOLDS = tuple(percent / 100 for percent in range(5, 100, 5))


# The sweeps of the FailFast paper (arXiv 2512.20573): 8 lengths of the AR drafter, 19 unmask thresholds at length 8 and
# 12 more lengths of the static dLLM drafter, 19 values of tau, 7 of N_max (of which 60 stands among the taus' already).
PAPER: tuple[DrafterSpec, ...] = (
    *(ArStatic(length) for length in (3, 4, 5, 6, 8, 10, 12, 15)),
    *(DllmStatic(threshold, 8) for threshold in _THRESHOLDS),
    *(DllmStatic(0.05, length) for length in (2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 20, 25)),
    *(FailFast(0.05, tau, 60, 10) for tau in _THRESHOLDS),
    *(FailFast(0.05, 0.45, longest, 10) for longest in (10, 20, 30, 40, 50, 70)),
)


GRIDS = {"paper": PAPER}
