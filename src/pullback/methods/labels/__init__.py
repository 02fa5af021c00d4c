"""Methods that take label maps, of many people."""
