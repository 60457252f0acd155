"""Size and scores of bit maps. Imports neither results nor search."""
