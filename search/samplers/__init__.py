"""Who proposes bit maps: the guided sampler and those of Optuna."""
