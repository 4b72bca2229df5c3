"""Your own trainers: files here call ``register_trainer(key, f)``."""
