"""Methods that see many people at once."""
