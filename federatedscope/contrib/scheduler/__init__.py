"""Your own learning-rate schedules: files here call ``register_scheduler(key, f)``."""
