"""The task's metric and the agreement with the reference, each with its interval."""
