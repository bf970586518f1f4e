"""The encoder and the artifact: families, tasks, loading, conversion, sizes before anything is made."""
