"""Checkpoints and what runs them: found, checked, loaded, cached; tokenizers and what tokens stand for."""
