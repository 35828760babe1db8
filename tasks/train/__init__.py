"""Train a LoRA adapter on a formatted data set, on TRL and PEFT."""
