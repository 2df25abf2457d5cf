"""What a run leaves: one question under one drafter, its identity, its file."""
