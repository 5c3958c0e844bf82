"""What a cut will bring: sizes, counts, a latency bound, and a verdict in words."""
