"""Tell one run's story to people: a single HTML page that needs nothing but itself."""
