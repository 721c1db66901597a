"""Messages as octets: what a header says, where the parts lie, what IMAP says of them, how they are stored.

Everything here is pure: octets in, values out; no I/O, no clock, no event loop. Nothing raises on any input, however
broken, and every function is linear in its input; where one has a bound its docstring names it.

    structure.py     the MIME tree with absolute offsets, BODY[section] as a pair of offsets, and its stored form
    content_type.py  Content-Type and Content-Disposition values
    headers.py       header fields as offsets; subsets of a header; unfolding
    address.py       address lists, as ENVELOPE wants them
    dates.py         RFC 5322 and INTERNALDATE dates, both ways
    summary.py       ENVELOPE, BODYSTRUCTURE, preview, message ids: what is stored beside a message
    bodystructure.py BODY out of a stored BODYSTRUCTURE
    imap_text.py     strings as IMAP writes them
    content.py       a message as text, inline octets and blobs, and the way back; layout.py describes the pieces
    charsets.py, transfer.py, decode.py, html_text.py, folding.py
                     octets to text: character sets, transfer encodings, encoded words, HTML, what SEARCH compares
    received.py      the trace fields we add
    edit.py          the one edit that submission makes
"""
