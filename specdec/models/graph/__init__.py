"""The graph backend: a network as CUDA graphs of fused kernels."""
