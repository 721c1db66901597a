"""PostgreSQL and Redis for one node, started and stopped by us; nothing else knows whether a service is embedded."""
