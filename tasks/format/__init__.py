"""Examples -> token ids and labels by the base model's own chat template."""
