"""The embedded default: a small BERT, trained on the spot on acceptability sentences that a grammar generates."""
