"""`python -m exporter` runs the command `exporter`."""

from exporter.cli import main

main()
