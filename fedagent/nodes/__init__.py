"""What a proxy knows of its nodes. Pure: the caller passes the time."""
