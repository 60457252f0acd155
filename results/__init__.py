"""What came out of a search: front, report, files. Imports objectives."""
