"""Exports: bit map files and checkpoints."""
