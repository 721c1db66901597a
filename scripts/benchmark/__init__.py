"""Measures what a message, a FETCH, a login costs, beside the servers that a user would otherwise pick.

Seconds do not travel between machines, ratios do. So every run starts all servers side by side, on loopback ports and
in a temporary directory of their own: Pillarbox with its embedded PostgreSQL and Redis, Postfix with Dovecot (maildir
and mdbox, durability at their defaults) where they are installed and may be started, and always aiosmtpd as it comes
with a handler that stores nothing: the yardstick that every machine can run. Each round visits every figure and within
it every server, in an order that turns, so that a noisy minute hits all alike; medians over the rounds are compared.

The cost of an operation is the CPU time, user and system, of all processes of the server: for Pillarbox the supervisor,
workers, PostgreSQL and Redis. `usage` reads it. The client is in other processes and is not counted.

Mail out goes to a sink in a process of its own, which counts what it gets, and for no server.

A figure is one function in `smtp_figures`, `relay_figures` or `imap_figures` under the `figure` decorator, its targets
beside it.
Everything is bounded in time, and only processes that the run itself started are stopped.
"""
