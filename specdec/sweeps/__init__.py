"""Runs of many tasks over one results folder: what was asked, whose part is whose, what is done."""
