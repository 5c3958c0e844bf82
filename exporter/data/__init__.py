"""Input data: the handwritten digits that ship with the package, and the users' samples."""
