"""What is asked: YAML or a command line as a `Recipe`, and the `Plan`, proven to fit before a weight is loaded."""
