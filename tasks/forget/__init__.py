"""Forget a person, a text or examples: find every trace, and keep later runs from a new one."""
