"""What is counted, for all parts. The api role shows it at /metrics, summed over all processes of the node.

The supervisor names a folder before this is imported (node/counters.py); each process then counts in files of its own,
which outlive it until the next start. Bind labels once where something is counted often:
`OPENED = metrics.sessions.labels("imap")`.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

sessions = Counter("pillarbox_sessions_total", "Connections that were let in.", ["protocol"])
sessions_open = Gauge(
    "pillarbox_sessions_open", "Connections that are open.", ["protocol"], multiprocess_mode="livesum"
)
refused = Counter("pillarbox_connections_refused_total", "Connections that were turned away.", ["protocol"])
messages_received = Counter(
    "pillarbox_messages_received_total", "Messages that were accepted, by the way they came in.", ["source"]
)
octets_received = Counter("pillarbox_received_octets_total", "Octets of accepted messages.", ["source"])
delivery_batches = Counter("pillarbox_delivery_batches_total", "Transactions that committed messages.")
delivered_messages = Counter(
    "pillarbox_delivered_messages_total", "Messages that they committed; divided by them: the size of a batch."
)
sent = Counter("pillarbox_sent_recipients_total", "Attempts at recipients elsewhere, by outcome.", ["outcome"])
logins = Counter("pillarbox_logins_total", "Logins by service and result.", ["service", "result"])
command_seconds = Histogram(
    "pillarbox_command_seconds", "Time from a command to its answer.", ["protocol", "command"], buckets=_SECONDS
)
blob_requests = Counter("pillarbox_blob_requests_total", "Requests to the object store.", ["operation"])
blob_errors = Counter("pillarbox_blob_errors_total", "Requests to the object store that failed.", ["operation"])
blob_seconds = Counter("pillarbox_blob_seconds_total", "Time that requests to the object store took.", ["operation"])
blob_cache = Counter(
    "pillarbox_blob_cache_total", "Reads by way of the blob cache: hits, their octets, misses, damaged files.", ["what"]
)
worker_starts = Counter("pillarbox_worker_starts_total", "Workers that were started, the first ones included.")
service_starts = Counter("pillarbox_service_starts_total", "Starts of embedded services.", ["service"])
