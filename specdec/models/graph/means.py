"""What layers are run by where they are: kernels on a GPU, plain torch elsewhere. It holds no weights."""

from specdec.models.graph import reference as plain
from specdec.models.graph.network import LibraryProducts, Means, Operations, Products
from specdec.models.graph.weights import HEAD_SIZES, LayerWeights


def means_for(layer: LayerWeights, overlaps: bool) -> tuple[Operations, Products | None]:
    """The operations for layers like this one, and the fused products, where there are any that can multiply it."""
    if layer.attention_norm_C.device.type != "cuda":
        return plain, None
    # Only here, because they need Triton.
    from specdec.models.graph.kernels import GpuOperations
    from specdec.models.graph.products import FusedProducts, can_fuse

    return GpuOperations(overlaps), FusedProducts(overlaps) if can_fuse(layer) else None


def means_of_head(layer: LayerWeights, head_size: int) -> Means | None:
    """What a head's passes of few rows are run by; None where its heads' values are not as many as kernels take."""
    if layer.attention_norm_C.device.type == "cuda" and head_size not in HEAD_SIZES:
        return None
    operations, fused = means_for(layer, overlaps=True)
    return Means(operations, fused or LibraryProducts(operations))
