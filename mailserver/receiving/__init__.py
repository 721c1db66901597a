"""SMTP servers: mail from other servers (MX) and from our own users (submission)."""
