"""Checkpoints kept in the store while training goes on, and gone on from."""
