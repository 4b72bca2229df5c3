"""What the workers of several methods share."""
