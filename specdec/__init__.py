"""The speculative-decoding library that failfast.py runs on: one noun per file."""
