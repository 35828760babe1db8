"""Keep the rows that can be trusted, redact what is private, split what is left."""
