-- The outbound queue as docs/storage-states.md describes it. A queued message is named by the message's own id.
ALTER TABLE queue_messages
    DROP COLUMN message_id, DROP COLUMN bounce_id, DROP COLUMN expires_at,
    ADD header_prefix bytea NOT NULL DEFAULT '',   -- what goes out in front of the received octets
    ADD open          int NOT NULL DEFAULT 0,      -- recipients that have a row
    ADD done_at       timestamptz,                 -- when the last of them went
    ADD report_id     bigint,                      -- message_id of the report that is being made
    ADD report_trace  uuid,
    ADD report_until  timestamptz;                 -- who makes it has so long
CREATE INDEX queue_messages_open ON queue_messages (account_id) WHERE done_at IS NULL;
CREATE INDEX queue_messages_done ON queue_messages (account_id, done_at) WHERE done_at IS NOT NULL;

ALTER TABLE queue_recipients
    DROP COLUMN held_until, DROP COLUMN last_reply,
    ADD act_by       timestamptz NOT NULL DEFAULT 'infinity',  -- until then nothing has to be told or given up
    ADD told         boolean NOT NULL DEFAULT false,           -- of the delay
    ADD report       text CHECK (report IN ('failed', 'delayed', 'relayed', 'expanded', 'delivered')),
    ADD report_id    bigint,                                   -- the report that tells of it
    ADD last_code    int,                                      -- of the last attempt: SMTP code, 0 where none came,
    ADD last_status  text,                                     -- enhanced status code (RFC 3463),
    ADD last_text    text,
    ADD last_host    text,
    ADD last_attempt timestamptz;
CREATE INDEX queue_recipients_act ON queue_recipients (destination, act_by) WHERE state = 'waiting';
CREATE INDEX queue_recipients_report ON queue_recipients (account_id, queue_id)
    WHERE report IS NOT NULL;
