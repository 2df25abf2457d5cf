"""The library that failfast.py runs on, and its face: sessions, records and prices in a few lines, on import no torch.

    import specdec

    session = specdec.open_session(max_new_tokens=64, drafters=["plain", "failfast"])
    prompt_ids = session.encode("Tom has 3 boxes of 12 pens and gives 7 away. How many are left?")
    plain, failfast = session.specs
    for turn in session.decode(failfast, prompt_ids):
        print(turn.draft_len, turn.accepted_len, repr(session.text_of(turn.emitted_tokens)))

    record = specdec.load_record("results/pickles/bundled/bundled/0/plain/64.pickle")
    for engine, price in specdec.Pricing.load(["H100_graph"], as_if="Qwen2.5-7B-Instruct").prices(record).items():
        print(engine, f"{price.speedup:.2f}x")

Not the command line, which is `specdec/cli.py`. One noun a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specdec.config import RunConfig
    from specdec.drafters.families import parse_name
    from specdec.errors import UserError
    from specdec.latency.pricing import Pricing
    from specdec.records.record import load_record
    from specdec.session import Session

__all__ = ["HOME", "Pricing", "RunConfig", "Session", "UserError", "load_record", "open_session", "parse_name"]

# Name -> where it is, imported when it is first asked for.
_FACE = {
    "Pricing": "specdec.latency.pricing",
    "RunConfig": "specdec.config",
    "Session": "specdec.session",
    "UserError": "specdec.errors",
    "load_record": "specdec.records.record",
    "parse_name": "specdec.drafters.families",
}


def __getattr__(name: str) -> Any:
    """The names of the face that are defined elsewhere (PEP 562)."""
    if name not in _FACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FACE[name]), name)


def open_session(target: str = "bundled", drafters: Sequence[str] | None = None, **settings: Any) -> Session:
    """The models of a target and of its drafters, found and checked; weights are loaded by the first `decode`.

    `target`: "bundled", a folder, or a name on the hub. `drafters`: words of --drafters, kinds or names, such as
    ["plain", "failfast"] (None: plain decoding and every drafter that needs no calibration). `settings`: any flag of
    `failfast run` by its name: ar_model_name, dllm_dir, max_new_tokens, device, dtype, spec_len=[4, 8], ...
    `session.specs` are the configurations that this makes; `parse_name` makes one of a name. Raises UserError for what
    cannot be run, TypeError for a setting that does not exist.
    """
    from specdec.config import RunConfig
    from specdec.session import open_session as open_configured

    if drafters is not None:
        settings["drafters"] = tuple(drafters)
    return open_configured(RunConfig.of(target_model_name=target, **settings))


def _home() -> Path:
    package = Path(__file__).resolve().parent
    installed = package / "_home"
    return installed if installed.is_dir() else package.parent


# What holds assets/, plotting/, profiling/ and training/: the checkout, or in an installed wheel a folder of this one.
HOME = _home()
