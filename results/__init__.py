"""What a search found: statistics, tables, plots, the report and exports. Imports objectives."""
