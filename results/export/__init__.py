"""Bit maps and checkpoints as files."""
