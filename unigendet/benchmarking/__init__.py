"""A detector judged on a published set: what is chosen of it, judged, and told."""
