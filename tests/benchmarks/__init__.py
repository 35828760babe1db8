"""Figures, each by one command: ``make bench B=NAME``. RESULTS.md keeps them with their date."""
