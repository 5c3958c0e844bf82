"""Prove that a file is the result of its cut, by comparing structures instead of samples."""
