"""What a bit map costs and scores. Imports neither results nor search."""
