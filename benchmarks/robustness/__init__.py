"""What liars cost, with a plain mean and with each protection."""
