"""A proxy per region against one for all."""
