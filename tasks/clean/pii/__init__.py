"""Personal data: where it is found, and by what it is replaced."""
