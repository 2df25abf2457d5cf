"""Downloads: how much of a model on the hub is not here yet, by the hub's list of its files. It fetches no weights."""

from pathlib import Path

from specdec.errors import UserError
from specdec.models.checkpoints import BUNDLED, SMOLLM2, ModelSource, weight_files


def missing_bytes(source: ModelSource) -> int | None:
    """Bytes of the weights that a run would fetch; 0: all are here; None: the hub cannot be asked, or does not say."""
    if source.name in (BUNDLED, SMOLLM2) or Path(source.name).expanduser().is_dir() or _is_whole(source):
        return 0
    from huggingface_hub import HfApi

    try:
        files = HfApi().model_info(source.name, files_metadata=True, timeout=30).siblings or []
    except Exception:  # whatever the reason: a plan does not end for it
        return None
    sizes = {one.rfilename: one.size for one in files if one.rfilename.endswith(".safetensors")}
    left = [size for name, size in sizes.items() if "/" not in name and not (source.path / name).is_file()]
    known = [size for size in left if size is not None]
    return sum(known) if known and len(known) == len(left) else None


def _is_whole(source: ModelSource) -> bool:
    """Whether the weights are in the hub's cache, all that their index names."""
    try:
        return bool(weight_files(source))
    except UserError:
        return False
