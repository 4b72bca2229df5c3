"""Builders: from a configuration to the object it names."""
