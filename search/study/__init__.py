"""The Optuna study: its records, and how they are read."""
