"""Read raw examples from every source into one snapshot; lock the golden set."""
