"""What users run to make latency profiles, one command a file; into a pipe or a file they print JSON."""
