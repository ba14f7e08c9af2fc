"""What the three knobs of delayed feedback cost and buy."""
