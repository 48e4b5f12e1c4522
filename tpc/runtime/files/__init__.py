"""Files that are whole or absent, locks, archives, streams: what knows nothing of models."""
