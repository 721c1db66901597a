"""IMAP4rev1 on the mail store: the session, and one file for each thing that a client can ask."""
