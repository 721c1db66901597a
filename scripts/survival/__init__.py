"""Proves that mail survives: a server under load is killed, stopped and starved, then everything is read back.

    octets      the messages: what an attempt sends follows from the seed and its number
    ledger      each attempt is written down before it is made and after it is answered; what may be there at the end
    imap        a client that tells an answer from silence
    load        the clients: MX, submission, APPEND, STORE, COPY, MOVE, EXPUNGE, and one that watches STATUS
    sink        the server elsewhere to which mail goes out; nothing happens to it
    site        the server and its services in a directory of their own
    faults      what is done to them
    reading     everything that is there at the end
    judge       the ledger against what is there
    elsewhere   the ledger against what the sink has got
    leftovers   what the queue still holds
    report      the table
    run         all of it in order

The rule: 250 or OK means exactly once for each recipient, with its exact octets; no answer means once or not at all;
4xx, 5xx and NO mean absent. An edit that got no answer has taken place whole or not at all, and its message is left
alone from then on; so for each message there are at most two states that it may end in. Elsewhere, 250 means at least
once, and more than once only where something was broken at the time: between its last octet and the 250 SMTP leaves no
other choice. At the end nobody waits in the queue, and nobody was told of a failure.

Every wait is bounded, and only processes that the run itself started are touched.
"""
