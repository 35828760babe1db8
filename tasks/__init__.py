"""The stages of the pipeline: one package a stage, over a small shared floor."""
