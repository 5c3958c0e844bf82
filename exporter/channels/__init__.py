"""The channels inside a network: which ones can be removed, and the edits that remove them."""
