"""One run: its directory, its loop, its workers and the checks at its end."""
