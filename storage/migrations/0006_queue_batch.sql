-- The group commit as in 0003, with messages for the outbound queue.
DROP FUNCTION deliver_batch(
    int, bigint[], bigint[], uuid[], bigint[], int[], bytea[], bytea[],
    bytea[], bigint[], text[], boolean[], bigint[], int[], bigint[], bytea[],
    smallint[], bytea[], bytea[], int[], bigint[], bigint[], bigint[], bigint[],
    int[], int[], bigint[], bigint[], int[], bigint[], bytea[]
);

CREATE FUNCTION deliver_batch(
    wait_milliseconds int,
    accounts bigint[],
    m_id bigint[], m_trace uuid[], m_size bigint[], m_header int[], m_envelope bytea[], m_structure bytea[],
    m_parts bytea[], m_sent bigint[], m_preview text[], m_share boolean[],
    m_generation bigint[],
    c_message int[], c_account bigint[], c_prefix bytea[], c_codec smallint[], c_layout bytea[], c_octets bytea[],
    p_message int[], p_account bigint[], p_mailbox bigint[], p_flags bigint[], p_received bigint[], p_size int[],
    t_message int[], t_account bigint[], t_hash bigint[],
    b_message int[], b_account bigint[], b_blob bytea[],
    q_message int[], q_account bigint[], q_path text[], q_envid text[], q_ret text[], q_body text[],
    q_smtputf8 boolean[], q_prefix bytea[], q_open int[], q_act float8[], q_pause float8[], q_lease float8[],
    q_token text[],
    r_message int[], r_address text[], r_destination text[], r_notify text[], r_orcpt text[], r_report text[]
) RETURNS SETOF delivered LANGUAGE plpgsql AS $$
DECLARE
    moment bigint := extract(epoch FROM now())::bigint;
    locked bigint[] := '{}';
    raised bigint[] := '{}';                       -- accounts whose modseq this batch has raised
    account bigint;
    state account_state%ROWTYPE;
    box mailboxes%ROWTYPE;
    result delivered;
    outcome text;
    room int;
    refused text;
    thread bigint;
    hit int;                                       -- the id by which the thread was found
    known bigint;
    p int := 1; p_end int;
    c int := 1; c_end int;
    t int := 1; t_start int; t_end int;
    b int := 1;
    q int := 1;
    r int := 1;
    leased boolean;
BEGIN
    IF wait_milliseconds > 0 THEN
        PERFORM set_config('lock_timeout', wait_milliseconds::text, true);
    END IF;
    FOREACH account IN ARRAY accounts LOOP
        IF wait_milliseconds > 0 THEN
            PERFORM 1 FROM account_state s WHERE s.account_id = account FOR UPDATE;
        ELSE
            PERFORM 1 FROM account_state s WHERE s.account_id = account FOR UPDATE SKIP LOCKED;
        END IF;
        IF FOUND THEN
            locked := locked || account;
        END IF;
    END LOOP;

    FOR m IN 1 .. cardinality(m_id) LOOP
        p_end := p;
        outcome := 'placed';
        refused := NULL;
        room := 0;
        c_end := c;
        WHILE c_message[c_end] = m LOOP
            IF NOT c_account[c_end] = ANY(locked) THEN
                outcome := 'skipped';
            END IF;
            c_end := c_end + 1;
        END LOOP;
        WHILE p_message[p_end] = m LOOP
            IF outcome = 'placed' THEN
                SELECT * INTO box FROM mailboxes x
                WHERE x.account_id = p_account[p_end] AND x.mailbox_id = p_mailbox[p_end] AND x.deleted_at IS NULL;
                IF NOT FOUND THEN
                    outcome := 'no mailbox';
                ELSIF box.uidnext >= 2147483647 THEN
                    outcome := 'no uid';
                END IF;
                SELECT * INTO state FROM account_state s WHERE s.account_id = p_account[p_end];
                IF state.quota_octets > 0 AND state.used_octets + p_size[p_end] > state.quota_octets
                    OR state.quota_messages > 0 AND state.used_messages + 1 > state.quota_messages THEN
                    IF refused IS NULL OR refused = 'never' THEN
                        refused := CASE WHEN state.quota_octets > 0 AND p_size[p_end] > state.quota_octets
                            THEN 'never' ELSE 'full' END;
                    END IF;
                ELSE
                    room := room + 1;
                END IF;
            END IF;
            p_end := p_end + 1;
        END LOOP;
        IF outcome = 'placed' AND refused IS NOT NULL AND (NOT m_share[m] OR room = 0) THEN
            outcome := refused;
        END IF;

        -- The sweeper may take blobs that are older than the previous generation (storage/blobs.py).
        IF outcome = 'placed' AND m_generation[m] > 0 AND m_generation[m] < moment / 604800 - 1 THEN
            outcome := 'old blob';
        END IF;

        t_start := t;
        WHILE t_message[t] = m LOOP t := t + 1; END LOOP;
        t_end := t;

        IF outcome = 'placed' THEN
            FOR i IN c .. c_end - 1 LOOP
                thread := m_id[m];
                hit := 0;
                FOR j IN t_start .. t_end - 1 LOOP
                    CONTINUE WHEN t_account[j] <> c_account[i];
                    SELECT r.thread_id INTO known FROM thread_refs r
                    WHERE r.account_id = c_account[i] AND r.msgid_hash = t_hash[j];
                    IF FOUND THEN
                        thread := known;
                        hit := j;
                        EXIT;
                    END IF;
                END LOOP;
                FOR j IN t_start .. t_end - 1 LOOP
                    CONTINUE WHEN t_account[j] <> c_account[i] OR j = hit;
                    INSERT INTO thread_refs (account_id, msgid_hash, thread_id) VALUES (c_account[i], t_hash[j], thread)
                    ON CONFLICT DO NOTHING;
                END LOOP;
                INSERT INTO messages (account_id, message_id, trace_id, header_prefix, size, header_octets, envelope,
                    bodystructure, parts, thread_id, sent, preview, created)
                VALUES (c_account[i], m_id[m], m_trace[m], c_prefix[i], m_size[m], m_header[m], m_envelope[m],
                    m_structure[m], m_parts[m], thread, m_sent[m], m_preview[m], moment);
                INSERT INTO message_contents (account_id, message_id, codec, layout, octets)
                VALUES (c_account[i], m_id[m], c_codec[i], c_layout[i], c_octets[i]);
            END LOOP;
            FOR j IN p .. p_end - 1 LOOP
                UPDATE account_state s SET used_octets = s.used_octets + p_size[j], used_messages = s.used_messages + 1,
                    modseq = s.modseq + CASE WHEN p_account[j] = ANY(raised) THEN 0 ELSE 1 END
                WHERE s.account_id = p_account[j] RETURNING * INTO state;
                raised := raised || p_account[j];
                known := box.highestmodseq;        -- of the only placement, read above
                IF p_end - p > 1 THEN
                    SELECT x.highestmodseq INTO known FROM mailboxes x
                    WHERE x.account_id = p_account[j] AND x.mailbox_id = p_mailbox[j];
                END IF;
                UPDATE mailboxes x SET uidnext = x.uidnext + 1, highestmodseq = state.modseq, modseq = state.modseq,
                    recent = x.recent + 1, messages = x.messages + 1, octets = x.octets + p_size[j],
                    unseen = x.unseen + CASE WHEN p_flags[j] & 1 = 0 THEN 1 ELSE 0 END,
                    deleted = x.deleted + CASE WHEN p_flags[j] & 8 = 0 THEN 0 ELSE 1 END,
                    deleted_octets = x.deleted_octets + CASE WHEN p_flags[j] & 8 = 0 THEN 0 ELSE p_size[j] END
                WHERE x.account_id = p_account[j] AND x.mailbox_id = p_mailbox[j] RETURNING * INTO box;
                INSERT INTO mailbox_pages AS g (account_id, mailbox_id, page, modseq, uids, message_ids, flags, modseqs,
                    sizes, received, saved)
                VALUES (p_account[j], p_mailbox[j], (box.uidnext - 1) >> 6, state.modseq,
                    int4send((box.uidnext - 1)::int), int8send(m_id[m]), int8send(p_flags[j]), int8send(state.modseq),
                    int4send(p_size[j]), int8send(p_received[j]), int8send(moment))
                ON CONFLICT (account_id, mailbox_id, page) DO UPDATE SET modseq = excluded.modseq,
                    uids = g.uids || excluded.uids, message_ids = g.message_ids || excluded.message_ids,
                    flags = g.flags || excluded.flags, modseqs = g.modseqs || excluded.modseqs,
                    sizes = g.sizes || excluded.sizes, received = g.received || excluded.received,
                    saved = g.saved || excluded.saved;
                result := ROW(m, j, 'placed', known, moment, box.mailbox_id, box.name, box.uidvalidity, box.uidnext,
                    box.highestmodseq, box.modseq, box.recent, box.recent_uid, box.special_use, box.keywords,
                    box.messages, box.unseen, box.deleted, box.octets, box.deleted_octets);
                RETURN NEXT result;
            END LOOP;
        ELSE
            result := NULL;
            result.message := m;
            result.placement := p;
            result.status := outcome;
            RETURN NEXT result;
        END IF;

        WHILE b_message[b] = m LOOP
            IF outcome = 'placed' THEN
                INSERT INTO blob_refs (account_id, message_id, blob) VALUES (b_account[b], m_id[m], b_blob[b])
                ON CONFLICT DO NOTHING;
            END IF;
            b := b + 1;
        END LOOP;
        IF q_message[q] = m THEN
            leased := q_token[q] <> '';
            IF outcome = 'placed' THEN
                INSERT INTO queue_messages (account_id, queue_id, trace_id, reverse_path, envid, ret, body, smtputf8,
                    header_prefix, open, created_at)
                VALUES (q_account[q], m_id[m], m_trace[m], q_path[q], nullif(q_envid[q], ''), nullif(q_ret[q], ''),
                    q_body[q], q_smtputf8[q], q_prefix[q], q_open[q], now());
            END IF;
            WHILE r_message[r] = m LOOP
                IF outcome <> 'placed' THEN
                    NULL;
                ELSIF r_report[r] <> '' THEN
                    INSERT INTO queue_recipients (account_id, queue_id, recipient, destination, state, notify, orcpt,
                        next_attempt_at, act_by, report)
                    VALUES (q_account[q], m_id[m], r_address[r], r_destination[r], 'delivered',
                        nullif(r_notify[r], ''), nullif(r_orcpt[r], ''), now(),
                        now() + make_interval(secs => q_act[q]), r_report[r]);
                ELSE
                    INSERT INTO queue_recipients (account_id, queue_id, recipient, destination, state, notify, orcpt,
                        attempts, next_attempt_at, act_by, lease_token, lease_until)
                    VALUES (q_account[q], m_id[m], r_address[r], r_destination[r], 'waiting',
                        nullif(r_notify[r], ''), nullif(r_orcpt[r], ''), leased::int,
                        now() + make_interval(secs => CASE WHEN leased THEN greatest(q_pause[q], q_lease[q]) ELSE 0 END),
                        now() + make_interval(secs => q_act[q]), nullif(q_token[q], '')::uuid,
                        CASE WHEN leased THEN now() + make_interval(secs => q_lease[q]) END);
                END IF;
                r := r + 1;
            END LOOP;
            IF outcome = 'placed' AND p_end = p THEN
                result := NULL;
                result.message := m;
                result.status := 'queued';
                RETURN NEXT result;
            END IF;
            q := q + 1;
        END IF;
        p := p_end;
        c := c_end;
    END LOOP;
END
$$;
