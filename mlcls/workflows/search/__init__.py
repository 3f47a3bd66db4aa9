"""A search: trials of a study that several processes share, and what comes of them."""
