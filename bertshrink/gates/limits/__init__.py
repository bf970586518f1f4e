"""What a team has committed to: rules with their places, from TOML or a recipe."""
