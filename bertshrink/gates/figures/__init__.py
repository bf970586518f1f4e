"""What is judged: an artifact's file and its report as figures."""
