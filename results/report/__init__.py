"""The report in HTML, Markdown and on the terminal."""
