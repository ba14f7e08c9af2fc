"""What travels: Flower's records, arrays as bytes, and arrays of which only some rows changed."""
