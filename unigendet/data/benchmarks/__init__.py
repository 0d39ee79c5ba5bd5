"""Published benchmarks and users' own labelled folders, read as they lie on disk."""
