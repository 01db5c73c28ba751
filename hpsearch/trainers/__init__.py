"""Small real trainers, each with a search space; they double as examples."""
