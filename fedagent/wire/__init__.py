"""What travels: records and arrays, and how they are checked when they come back."""
