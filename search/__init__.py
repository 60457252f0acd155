"""Which bit maps to try, and the command line. Imports objectives and results."""
