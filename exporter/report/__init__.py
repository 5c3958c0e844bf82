"""Draw the report: Markdown, HTML and the terminal."""
