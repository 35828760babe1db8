"""Evaluation: what each contestant answers to the golden set, and how good those answers are."""
