"""Serving: which version answers whom, what was asked and answered, and what users said of it."""
