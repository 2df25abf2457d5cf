"""Figures from records, traces and rankings: one file per figure, each run as `python -m plotting.NAME`."""
