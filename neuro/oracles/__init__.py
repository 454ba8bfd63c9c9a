"""The same Graph on a foreign engine."""
