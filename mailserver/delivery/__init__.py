"""Where a recipient leads, and the one door by which messages enter the store."""
