"""The gate: whether the evidence allows a candidate to replace the model in production."""
