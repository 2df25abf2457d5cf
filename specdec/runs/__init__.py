"""Runs of many questions: jobs, resume, shards, status."""
