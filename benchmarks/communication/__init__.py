"""What codecs save, what they cost, and what they lose."""
