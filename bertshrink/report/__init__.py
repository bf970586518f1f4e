"""What a run measured: measurements, statistics, and the versioned report."""
