"""What tests of Triton kernels share: where they run, how near is near, and inputs on both sides. No test.

Importing it skips the module where kernels cannot run. Without a GPU, `pip install triton` and TRITON_INTERPRET=1 run
them.
"""

from __future__ import annotations

import os
import random

import pytest
import torch

from specdec.models.graph import reference as plain

pytest.importorskip("triton", reason="Triton is not installed: kernels are for GPUs")
if not (torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1"):
    pytest.skip("kernels need a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from specdec.models.graph.branches import BranchBuffers, Branches  # noqa: E402
from specdec.models.graph.kernels import GpuOperations  # noqa: E402
from specdec.models.graph.network import LibraryProducts, Stream  # noqa: E402
from specdec.models.graph.products import FusedProducts  # noqa: E402
from specdec.models.tree_rows import TreeRows  # noqa: E402

IS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if IS_GPU else "cpu"
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16  # the interpreter multiplies no bfloat16
TOLERANCE = {torch.float32: {"atol": 1e-5, "rtol": 1e-5}, HALF: {"atol": 2e-2, "rtol": 2e-2}}


def assert_near(got: torch.Tensor, want: torch.Tensor) -> None:
    """For products: float32 to 1e-5. Of half, what is rounded twice on the one way and once on the other may leave a
    small element few right digits: within 2 % as a whole, and none further off than 5 % of the largest."""
    if want.dtype == torch.float32:
        torch.testing.assert_close(got.cpu(), want, **TOLERANCE[want.dtype])
        return
    assert got.dtype == want.dtype and got.shape == want.shape
    apart, size = got.cpu().float() - want.float(), want.float()
    assert apart.norm() <= 0.02 * size.norm() and apart.abs().max() <= 0.05 * size.abs().max()


@pytest.fixture(params=[torch.float32, HALF], ids=["float32", "half"])
def dtype(request) -> torch.dtype:
    torch.manual_seed(0)
    return request.param


def compare(name: str, *arguments: object, tolerance: dict[str, float]) -> None:
    """The kernel on the device, the plain operation on the CPU; both may write to their arguments."""
    ours = [a.clone().to(DEVICE) if isinstance(a, torch.Tensor) else a for a in arguments]
    theirs = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    got, want = getattr(GpuOperations(True), name)(*ours), getattr(plain, name)(*theirs)
    if want is not None:
        torch.testing.assert_close(got.cpu(), want, **tolerance)
    for mine, its in zip(ours, theirs, strict=True):
        if isinstance(mine, torch.Tensor):
            torch.testing.assert_close(mine.cpu(), its, **tolerance)


def random_branches(rows: int, num_tokens: int) -> Branches:
    """A random tree of `num_tokens` rows in a pass of `rows`, on the CPU."""
    buffers, rng = BranchBuffers(rows, torch.device("cpu")), random.Random(f"{rows} {num_tokens}")
    buffers.send(TreeRows.of([rng.randint(-1, row - 1) for row in range(num_tokens)]), rows)
    return buffers.receive(rows)


def streams(dtype: torch.dtype, rows: int, size: int) -> tuple[Stream, Stream, FusedProducts, LibraryProducts]:
    """The same residual stream on the device and on the CPU, begun, and what multiplies there."""
    hidden, norm = torch.randn(rows, size).to(dtype), (1 + 0.1 * torch.randn(size)).to(dtype)
    ours, theirs = Stream(hidden.to(DEVICE, copy=True), norm.to(DEVICE), 1e-6), Stream(hidden, norm, 1e-6)
    fused, library = FusedProducts(True), LibraryProducts(plain)
    fused.begin(ours)
    library.begin(theirs)
    return ours, theirs, fused, library


def assert_adds(on_both: tuple[Stream, Stream, FusedProducts, LibraryProducts], rows: int, inner: int) -> None:
    """Adding a product to the stream on both sides, and what the next product reads of it. Twice: the workspace is left
    clean. A tap gets what is added."""
    ours, theirs, fused, library = on_both
    outer, dtype = theirs.hidden_MC.shape[1], theirs.hidden_MC.dtype
    y, norm = torch.randn(rows, inner).to(dtype), (1 + 0.1 * torch.randn(outer)).to(dtype)
    w, then = ((torch.randn(*size) / size[1] ** 0.5).to(dtype) for size in ((outer, inner), (64, outer)))
    taps_M2C = torch.zeros(rows, 2, outer, dtype=dtype, device=DEVICE)
    for turn in range(2):
        fused.add(ours, y.to(DEVICE), w.to(DEVICE), norm.to(DEVICE), *taps_M2C.unbind(1)[:turn])
        library.add(theirs, y, w, norm)
        assert_near(ours.hidden_MC, theirs.hidden_MC)
        tapped = ours.hidden_MC if turn else torch.zeros_like(ours.hidden_MC)
        assert torch.equal(taps_M2C[:, 0], tapped) and not taps_M2C[:, 1].any()
        assert_near(fused.gated(ours, then.to(DEVICE)), library.gated(theirs, then))
