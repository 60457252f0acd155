"""Benchmarks: `python -m tests.benchmarks NAME`. Each prints ratios against a twin measured in the same run."""
