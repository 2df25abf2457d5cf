"""Measurements of one backend or one claim each; the last line on stdout is one JSON document."""
