"""Fine-tuning by an API in OpenAI's form: uploaded once, paid once, found again after any kill."""
