"""Images in the formats of all tools."""
