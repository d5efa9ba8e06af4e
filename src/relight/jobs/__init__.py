"""From request to picture: the stages, strung together over the workers."""
