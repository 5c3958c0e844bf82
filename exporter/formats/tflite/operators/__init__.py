"""The rows of the translation table, by the kind of operation."""
