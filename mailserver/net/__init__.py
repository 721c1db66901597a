"""Sockets, TLS, deadlines and limits: what stands between the loop and the protocols."""
