"""One file, one flow: each reads as a table of contents."""
