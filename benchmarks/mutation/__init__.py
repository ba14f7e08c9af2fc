"""Small mistakes in the pure rooms, and whether the tests notice."""
