"""Servers that stand beside the pipeline."""
