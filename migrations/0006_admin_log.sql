CREATE TABLE admin_log (
    number BIGINT PRIMARY KEY CHECK (number > 0),
    at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    details TEXT NOT NULL,
    previous_hash BYTEA NOT NULL CHECK (octet_length(previous_hash) = 32),
    hash BYTEA NOT NULL CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE admin_log IS 'Every action of an admin, chained by hashes (docs/admin-log.md). Append-only, never dropped.';
COMMENT ON COLUMN admin_log.number IS '1, 2, 3 … without gaps.';
COMMENT ON COLUMN admin_log.actor IS 'Subject of the token that the admin came with.';
COMMENT ON COLUMN admin_log.details IS 'JSON object as text, since the hash is over these very bytes.';
COMMENT ON COLUMN admin_log.previous_hash IS 'Hash of the entry before; of the first one 32 zero bytes.';
COMMENT ON COLUMN admin_log.hash IS 'SHA-256 over the previous hash and everything else in the entry.';

CREATE TABLE admin_log_head (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    last_number BIGINT NOT NULL,
    last_hash BYTEA NOT NULL CHECK (octet_length(last_hash) = 32)
);
INSERT INTO admin_log_head (last_number, last_hash) VALUES (0, decode(repeat('00', 32), 'hex'));
COMMENT ON TABLE admin_log_head IS 'One row, moved on by the transaction that appends: its lock keeps appends in order, and entries that were cut off at the end are missed.';
COMMENT ON COLUMN admin_log_head.last_number IS 'Of the newest entry; 0 before the first.';
COMMENT ON COLUMN admin_log_head.last_hash IS 'Of the newest entry; 32 zero bytes before the first.';

CREATE FUNCTION refuse_admin_log_change() RETURNS TRIGGER
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: the admin log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'What an admin did stays in the log; a mistake is corrected by another action.';
END
$$;
CREATE FUNCTION refuse_admin_log_rewind() RETURNS TRIGGER
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.last_number <> OLD.last_number + 1 THEN
        RAISE EXCEPTION 'the head of the admin log moves from % to % only, not to %',
            OLD.last_number, OLD.last_number + 1, NEW.last_number
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER admin_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_admin_log_change();
CREATE TRIGGER admin_log_head_stays BEFORE DELETE OR TRUNCATE ON admin_log_head
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_admin_log_change();
CREATE TRIGGER admin_log_head_moves_on BEFORE UPDATE ON admin_log_head
    FOR EACH ROW EXECUTE FUNCTION refuse_admin_log_rewind();
-- Also in sessions that set session_replication_role.
ALTER TABLE admin_log ENABLE ALWAYS TRIGGER admin_log_is_append_only;
ALTER TABLE admin_log_head ENABLE ALWAYS TRIGGER admin_log_head_stays;
ALTER TABLE admin_log_head ENABLE ALWAYS TRIGGER admin_log_head_moves_on;

ALTER TABLE settings ADD COLUMN hold_announced BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN settings.hold_announced IS 'Admins were told that readings are held back since auto-mint was switched off; set by whoever holds back the first one.';
COMMENT ON COLUMN settings.changed_by IS 'Admin who last changed the toggle or the percentage; NULL: nobody did since the first start.';

ALTER TABLE mint_transactions ADD COLUMN dead_unproven BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN mint_transactions.dead_unproven IS 'Dead because an admin answers for it, without a proof: it stays watched, and the ledger breaker opens if it is found landed.';
CREATE INDEX mint_transactions_watched ON mint_transactions (number)
    WHERE dead_unproven;
