"""Two nodes beside a recursion in NumPy."""
