"""Execution: a runner places trials, a fork server starts one fresh process for each."""
