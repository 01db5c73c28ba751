"""What happens inside a trial: the step loop, measuring, checkpoints and exact resume."""
