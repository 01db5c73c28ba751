"""hpsearch: one YAML becomes a pruned, tracked sweep of PyTorch trials."""
