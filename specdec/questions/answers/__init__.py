"""Answers: what a math answer says, from its TeX or plain text to a value, a set, an interval, a matrix or words."""
