"""Write a report as Markdown, as HTML and to the terminal."""
