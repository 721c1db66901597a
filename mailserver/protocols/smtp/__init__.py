"""SMTP as octets and values, without sockets, clocks or storage."""
