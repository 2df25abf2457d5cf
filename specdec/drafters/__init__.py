"""One file a drafter family: its specs and names, its flags, its live drafter, what it records."""
