-- What was read of the chain for proofs that expired mint transactions did not land, so that an interruption costs nothing.

-- Transactions that take longer than usual are looked up by a schedule of their own, so that they never delay the others. First of
-- all, because it takes the strongest lock.
ALTER TABLE mint_transactions ADD COLUMN late BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN mint_transactions.late IS 'It was not final when nodes begin to forget recent statuses, or when it expired: late_transactions schedules its look-ups.';

CREATE TABLE scanned_runs (
    endpoint TEXT NOT NULL,
    first_slot BIGINT NOT NULL,
    first_height BIGINT NOT NULL,
    first_parent_slot BIGINT NOT NULL CHECK (first_parent_slot < first_slot),
    first_parent_hash BYTEA NOT NULL CHECK (octet_length(first_parent_hash) = 32),
    last_slot BIGINT NOT NULL CHECK (last_slot >= first_slot),
    last_height BIGINT NOT NULL CHECK (last_height >= first_height),
    last_hash BYTEA NOT NULL CHECK (octet_length(last_hash) = 32),
    PRIMARY KEY (endpoint, first_slot)
);
COMMENT ON TABLE scanned_runs IS 'Unbroken runs of finalized blocks that were read whole, endpoint by endpoint. A run holds every block between its ends. Deleted once no open mint transaction could be in it.';
COMMENT ON COLUMN scanned_runs.endpoint IS 'Fingerprint of the endpoint''s URL.';
COMMENT ON COLUMN scanned_runs.first_parent_slot IS 'Slot of the block before the first one.';
COMMENT ON COLUMN scanned_runs.first_parent_hash IS 'Its hash, as the first one names it: runs are joined only if it equals last_hash of the earlier one.';

CREATE TABLE scanned_signatures (
    signature BYTEA PRIMARY KEY CHECK (octet_length(signature) = 64),
    slot BIGINT NOT NULL,
    endpoint TEXT NOT NULL
);
COMMENT ON TABLE scanned_signatures IS 'Our own signatures that were found in finalized blocks: none of these is ever proven dead. Deleted once their transaction has ended.';

-- The transactions that a block of some height could hold.
CREATE INDEX mint_transactions_open_by_height ON mint_transactions (last_valid_block_height)
    WHERE state IN ('recorded', 'confirmed', 'quarantined');

CREATE INDEX mint_transactions_in_time ON mint_transactions (number)
    WHERE state IN ('recorded', 'confirmed') AND NOT late;

CREATE TABLE late_transactions (
    number BIGINT PRIMARY KEY REFERENCES mint_transactions (number),
    look_ups INTEGER NOT NULL DEFAULT 0,
    look_up_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    proofs_failed INTEGER NOT NULL DEFAULT 0,
    proof_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    no_proof TEXT,
    expired_at TIMESTAMPTZ,
    expired_at_clock_ms BIGINT
);
CREATE INDEX late_transactions_by_look_up ON late_transactions (look_up_at);
CREATE INDEX late_transactions_by_proof ON late_transactions (proof_at);
COMMENT ON TABLE late_transactions IS 'Open mint transactions that the look-ups of recent statuses did not bring to an end. Deleted once they have ended.';
COMMENT ON COLUMN late_transactions.look_ups IS 'Look-ups in the endpoints'' histories so far; the next one is due at look_up_at.';
COMMENT ON COLUMN late_transactions.proofs_failed IS 'Searches for a proof that no endpoint could complete; the next one is due at proof_at.';
COMMENT ON COLUMN late_transactions.no_proof IS 'Why the last search did not complete.';
COMMENT ON COLUMN late_transactions.expired_at IS 'When the endpoints were first past its last valid height.';
COMMENT ON COLUMN late_transactions.expired_at_clock_ms IS 'What proof_clock showed then: it is quarantined after LEDGER_QUARANTINE_AFTER_SECS by that clock.';

CREATE TABLE proof_clock (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    answered_ms BIGINT NOT NULL,
    ticked_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    endpoints TEXT NOT NULL DEFAULT ''
);
COMMENT ON TABLE proof_clock IS 'One row: how long an endpoint has answered while mint transactions were expired and unproven.';
COMMENT ON COLUMN proof_clock.answered_ms IS 'By the database''s clock.';
COMMENT ON COLUMN proof_clock.endpoints IS 'Fingerprint of the endpoints that were searched last: when others are configured, everything is due at once.';

-- Transactions that are open now keep the time that was counted for them.
INSERT INTO proof_clock (answered_ms)
SELECT COALESCE(max(unproven_secs), 0) * 1000
FROM mint_transactions
WHERE state IN ('recorded', 'quarantined');
INSERT INTO late_transactions (number, expired_at, expired_at_clock_ms)
SELECT number,
       CASE WHEN unproven_secs > 0 THEN now() - make_interval(secs => unproven_secs) END,
       CASE WHEN unproven_secs > 0 THEN answered_ms - unproven_secs * 1000 END
FROM mint_transactions, proof_clock
WHERE state IN ('recorded', 'confirmed', 'quarantined')
  AND (state = 'quarantined' OR unproven_secs > 0 OR recorded_at < now() - INTERVAL '60 s');
UPDATE mint_transactions
SET late = TRUE
WHERE number IN (SELECT number FROM late_transactions);
COMMENT ON COLUMN mint_transactions.unproven_secs IS 'Only written by earlier versions: late_transactions.expired_at_clock_ms.';
