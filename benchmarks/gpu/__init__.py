"""Whether clients on a GPU come out as on the CPU, and how many it trains per second."""
