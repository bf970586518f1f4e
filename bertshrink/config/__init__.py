"""YAML and TOML whose every value remembers its file, line and column."""
