"""How the shipped miniature, ``objectives/miniature/``, was made: a grammar, its sentences and a training."""
