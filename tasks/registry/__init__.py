"""The model registry: who is champion, and the one way to change that."""
