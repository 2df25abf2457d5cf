"""What users run to make latency profiles, one command a file; the last line on stdout is one JSON document."""
