"""Propose rows for a golden set, let a person review them, make the set of what was accepted."""
