"""Figures anybody can measure again: one command each, one JSON line per result."""
