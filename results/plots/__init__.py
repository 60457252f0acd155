"""Plots: info functions say what to draw, draw functions draw it."""
