"""Records of work on disk: written atomically, locked, as CSV, with a manifest."""
