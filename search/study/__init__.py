"""The Optuna study: what is written to it and how it is read."""
