"""The jobs: each command of the tool as a function, from an opened source to a report."""
