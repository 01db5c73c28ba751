"""Text to Spec: reading search-space files and naming every mistake in them by line and column."""
