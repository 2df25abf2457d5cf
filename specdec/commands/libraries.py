"""Libraries: torch and transformers, imported once and sooner. It knows nothing of what they are for."""

import gc
import importlib
import sys


def import_libraries() -> None:
    """Import what runs models, without looking for garbage meanwhile: a tenth of the time goes there, among hundreds of
    thousands of objects that stay. They are left out of every later look as well."""
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        importlib.import_module("specdec.session")
        gc.freeze()
    finally:
        gc.enable()
