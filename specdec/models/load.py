"""Loads the checkpoints that `checkpoints.py` finds into transformers' own modules, on a device in a dtype.

It also says where a run's models go and which backend runs them.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from specdec.errors import UserError
from specdec.models.architectures import Architecture
from specdec.models.checkpoints import INT8, ModelSource
from specdec.models.graph.graph_lm import MAX_TOKENS, GraphLM
from specdec.models.graph.weights import unsupported
from specdec.models.int8 import quantised
from specdec.models.joined import body_of
from specdec.models.layer_settings import rope_settings
from specdec.models.lm import CachedLM
from specdec.models.room import must_spread

log = logging.getLogger("failfast")
BACKENDS = {"eager": CachedLM, "graph": GraphLM}
# On a CPU a second thread must bring more than the two lose by waiting for each other in every product: models of fewer
# parameters than this run as fast with one alone, and on a busy machine many times faster.
PARAMETERS_A_THREAD = 64_000_000


def load_lm(
    source: ModelSource,
    device: torch.device,
    dtype: torch.dtype,
    vocab_size: int | None = None,
    backend: str = "eager",
    gaps: Sequence[int] = (),
) -> CachedLM:
    """The model on `device` in `dtype`, with an empty cache. `vocab_size`, `gaps`: see CachedLM; `backend`: eager or
    graph."""
    if must_spread(source, device, dtype):
        return CachedLM(load_hf_model(source, dtype, device_map="auto"), vocab_size, gaps=gaps)
    model = load_hf_model(source, dtype)
    model = moved(quantised(model, device) if source.kept_as == INT8 else model, device)
    if backend == "eager":
        return CachedLM(model, vocab_size, gaps, body_of(model))
    return BACKENDS[backend](model, vocab_size, gaps=gaps)


def moved(model: PreTrainedModel, where: torch.device | torch.dtype | str) -> PreTrainedModel:
    """`model` itself, on another device or in another dtype."""
    return model.to(where)  # type: ignore[arg-type]  # transformers' wrapper of `to` is typed without its self


def load_hf_model(source: ModelSource, dtype: torch.dtype, device_map: str | None = None) -> PreTrainedModel:
    """transformers' own module with the checkpoint's weights, on the CPU or where `device_map` puts them."""
    model_class = getattr(transformers, source.architecture.model_class)
    # The name of this argument changed between transformers 4 and 5.
    dtype_name = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
    _silence()
    try:
        model, info = model_class.from_pretrained(
            source.path,
            config=model_config(source),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
            **{dtype_name: dtype},
            **({} if device_map is None else {"device_map": device_map}),
        )
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        raise UserError(f"cannot load the weights of {source.path} ({reason}): do they fit its config.json?") from error
    misfits = [*info["missing_keys"], *info["mismatched_keys"], *filter(_is_needed, info["unexpected_keys"])]
    if misfits:
        raise UserError(f"the weights in {source.path} do not fit its config.json: see {min(map(str, misfits))}")
    return with_settled_angles(model)


def with_settled_angles(model: PreTrainedModel) -> PreTrainedModel:
    """`model` itself, whose angles do not change with the length of a text: nothing is run after `context_len`, and up
    to there they are those that it was made with."""
    rotary = model.get_submodule("model.rotary_emb")
    if isinstance(rotary.rope_type, str):  # where kinds of layers have their own, none changes
        rotary.__dict__["rope_type"] = "default"
    return model


def model_config(source: ModelSource) -> PretrainedConfig:
    """The checkpoint's settings as transformers' own class for its architecture, which may raise anything.

    Only the fields that the architecture reads: what else a config.json has (a way to run attention, what forwards
    return) is about other programs. Spelled as both transformers 4 and 5 understand it.
    """
    row, config = source.architecture, source.config
    known = {name: config[name] for name in row.fields if name in config}
    # Null is as good as no field, but for a window, where it says that there is none.
    arguments = {name: value for name, value in known.items() if value is not None or name == "sliding_window"}
    if "num_key_value_heads" in known:  # where it is null, each head has its own
        arguments.setdefault("num_key_value_heads", config["num_attention_heads"])
    arguments["pad_token_id"] = None  # classes have ids of their own, which small tables do not have
    return getattr(transformers, row.config_class)(**{**arguments, **_rope_arguments(row, config)})


def _rope_arguments(row: Architecture, config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings as both versions take them; None for what is left out."""
    rope = rope_settings(config)
    bases = {name: rope.pop(name, None) for name in ("rope_theta", "rope_local_base_freq")}
    arguments = {name: value for name, value in bases.items() if name in row.fields and value is not None}
    arguments |= {name: rope.pop(name) for name in row.rope_apart if name in rope}
    if row.rope_apart:
        rope["type"] = rope.pop("rope_type")
    is_plain = "default" in (rope.get("rope_type"), rope.get("type"))
    return {**arguments, "rope_scaling": None if is_plain else rope, "rope_parameters": None}


def check_network(source: ModelSource) -> None:
    """Raise UserError where transformers can make no network of a checkpoint's settings. It makes one of a single
    layer, which takes no memory."""
    _silence()
    kinds = source.config.get("layer_types")
    one_kind = {} if kinds is None else {"layer_types": kinds[:1]}
    single = replace(source, config={**source.config, "num_hidden_layers": 1, **one_kind})
    try:
        with torch.device("meta"):
            getattr(transformers, source.architecture.model_class)(model_config(single))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".strip().split("\n")[0]
        raise UserError(f"{source.path / 'config.json'} describes no network ({reason})") from error


def _silence() -> None:
    """What does not fit is said by this program, in one line, and not in a report of many."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity(logging.CRITICAL)


def _is_needed(key: str) -> bool:
    """Whether a weight that the model has no place for is a sign of a wrong config.json."""
    return not key.endswith(("rotary_emb.inv_freq", "lm_head.weight"))


def resolve_device(name: str) -> torch.device:
    """'auto' is the first GPU, else the CPU. Raises UserError for what this machine lacks."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} is not available here: try --device cpu") from error
    return device


@cache
def most_threads() -> int:
    """The threads that torch takes by itself: the cores, or what OMP_NUM_THREADS says. Asked before any are set."""
    return torch.get_num_threads()


def threads_for(asked: int | None, device: torch.device, num_parameters: int, most: int) -> int | None:
    """The threads of a CPU's passes: as asked, else by the parameters of the biggest model of the run, at most `most`.
    None: the passes run elsewhere, and nothing is set.

    Example: of 16 threads a model of 12 M gets 1, one of 135 M gets 3, one of 1.5 B all.
    """
    if asked is not None or device.type != "cpu":
        return asked
    return max(1, min(most, -(-num_parameters // PARAMETERS_A_THREAD)))


def resolve_backend(
    wanted: str,
    device: torch.device,
    dtype: torch.dtype,
    sources: Collection[ModelSource],
    *,
    block_size: int,
    only_eager: str | None,
) -> str:
    """What runs the models of a run, `sources`, so that their times can be compared: "eager" or "graph".

    `wanted` may also be "auto": graph on a GPU and eager elsewhere. Where the graph backend is wanted and cannot do a
    run's work, in blocks of `block_size` (`only_eager`: why not, if the work itself is such), one line says so and all
    models run eagerly.
    """
    if wanted == "eager" or (wanted == "auto" and device.type != "cuda"):
        return "eager"
    reason = only_eager or _why_not_graph(device, dtype, sources, block_size)
    if reason is None:
        if device.type != "cuda":
            log.warning("backend: %s", backend_title("graph", device))
        return "graph"
    log.warning("backend: eager, not graph, because %s", reason)
    return "eager"


def backend_title(backend: str, device: torch.device) -> str:
    """What ran the models, in words: without a GPU the graph backend has neither kernels nor graphs."""
    if backend != "graph" or device.type == "cuda":
        return backend
    return f"graph on {device.type}: its plain torch operations, for tests; its times say nothing of the engine"


def _why_not_graph(
    device: torch.device, dtype: torch.dtype, sources: Collection[ModelSource], block_size: int
) -> str | None:
    """What keeps the graph backend from running these models, in a few words; None if nothing does."""
    reason = next(filter(None, (_unsupported(source) for source in sources)), None)
    if reason is not None:
        return reason
    if any(must_spread(source, device, dtype) for source in sources):
        return "the target does not fit one GPU"
    if block_size > MAX_TOKENS:
        return f"it runs blocks of at most {MAX_TOKENS} positions"
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton is not installed"
    return None


def _unsupported(source: ModelSource) -> str | None:
    """Why the graph backend cannot run a checkpoint. One that cannot be read is left to the loading, which says so."""
    try:
        reason = unsupported(model_config(source))
    except Exception:
        return None
    return None if reason is None else f"{source.path} has {reason}"


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)
