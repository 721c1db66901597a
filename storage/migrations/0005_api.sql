-- What the REST API keeps: contacts, tokens that were taken back, the keys that tokens are signed with, and requests that
-- must have their effect once.

CREATE TABLE contacts (
    account_id bigint NOT NULL,
    contact_id bigint NOT NULL,
    name       text NOT NULL,
    email      text NOT NULL,
    details    jsonb NOT NULL DEFAULT '{}',        -- the further fields, see storage/contacts.py
    sort_key   text COLLATE "C" NOT NULL,          -- the name folded, for lists
    modseq     bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account_id, contact_id)
);
CREATE INDEX contacts_by_name ON contacts (account_id, sort_key, contact_id);

CREATE TABLE revoked_tokens (
    account_id bigint NOT NULL,
    jti        uuid NOT NULL,
    expires_at timestamptz NOT NULL,               -- from when on the token is of no use anyway
    PRIMARY KEY (account_id, jti)
);
CREATE INDEX revoked_tokens_by_end ON revoked_tokens (expires_at);

CREATE TABLE idempotency_keys (
    account_id bigint NOT NULL,
    key        text NOT NULL,                      -- as the client said it
    request    bytea NOT NULL,                     -- SHA-256 of what was asked for
    message_id bigint NOT NULL,                    -- of the message that the request sends
    holder     bigint NOT NULL,                    -- an account that has the message once it is sent
    trace_id   uuid NOT NULL,
    done       boolean NOT NULL DEFAULT false,
    begun_at   timestamptz NOT NULL,               -- of the attempt that is or was the last
    PRIMARY KEY (account_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (begun_at);

-- Belongs to the installation, as the directory does.
CREATE TABLE signing_keys (
    kid        text PRIMARY KEY,
    secret     bytea NOT NULL,                     -- sealed by the master key, see storage/keys.py
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL                -- from when on no token that it signed is of use
);
