"""Points and surfaces in the formats of all tools."""
