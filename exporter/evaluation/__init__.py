"""Statistics of each unit on data, and the rules that choose units by them."""
