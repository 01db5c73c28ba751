"""The MLflow door: the outbox from the store to runs that people look at."""
