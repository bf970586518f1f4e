"""How large an encoder is, from its configuration and the names of its tensors: told before anything is loaded."""
