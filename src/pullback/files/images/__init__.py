"""Images of every tool."""
