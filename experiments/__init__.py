"""One claim of the README or the docs a file: what it compares, and one JSON document as the last line on stdout.

What users run to make latency profiles is profiling/, whose helpers are used here.
"""
