"""What heads do: their maps, the class of each, and what is lost without them."""
