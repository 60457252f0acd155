"""Plots: info functions work out the values, draw functions draw them."""
