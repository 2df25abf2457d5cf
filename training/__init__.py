"""Trains the bundled model family: one target and its two drafters. Run files as `python -m training.NAME`."""
