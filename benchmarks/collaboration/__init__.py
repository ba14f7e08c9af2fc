"""What the collaborative model does, in numbers."""
