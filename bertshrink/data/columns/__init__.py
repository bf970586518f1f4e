"""Which columns are texts and labels, by name and by content."""
