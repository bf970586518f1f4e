"""Files on disk: written whole or not at all, opened safely, read by their headers."""
