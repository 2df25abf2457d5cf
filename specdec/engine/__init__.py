"""The graph engine: CachedLM near the limit of memory bandwidth, for Qwen2 and Llama models on one GPU."""
