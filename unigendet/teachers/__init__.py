"""Who teaches in DIGA: the detector, or for comparison networks that know nothing of it."""
