"""The rows of the translation table, by what the operators do."""
