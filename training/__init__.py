"""Trains model families: targets and their drafters. Run files as `python -m training.NAME`; with several GPUs or
processes as `torchrun --nproc_per_node N -m training.NAME` (training.ranks)."""
