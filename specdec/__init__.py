"""The speculative-decoding library behind failfast.py: one noun per file."""
