"""Points and surfaces of every tool."""
