"""What webhooks bring: an inbox that loses nothing, the rows in it, and when they start a run."""
