"""Mail to other servers: where it goes, how it is handed over, when it is tried again, what became of it."""
