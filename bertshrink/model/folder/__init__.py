"""What is beside weights in a model's folder, read and written."""
