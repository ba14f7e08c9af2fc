"""How large a page is, how long it takes to write and to open, and what a live view costs."""
