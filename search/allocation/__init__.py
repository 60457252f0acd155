"""Which bits to which layer: sensitivities, the exact knapsack, constraints, baselines."""
