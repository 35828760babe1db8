"""What teaches a model bad habits: gibberish, refusals, wrong languages, repetition."""
