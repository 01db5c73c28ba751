"""The search itself: trials and their facts, the three events, pruning rules, samplers, the store."""
