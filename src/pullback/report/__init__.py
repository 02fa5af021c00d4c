"""Pages, figures and pictures of results, for people."""
