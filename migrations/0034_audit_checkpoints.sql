-- Checkpoints of the audit: what was compared once, is final on chain and finalized in the ledger need not be compared each night.
-- Only `gridtokenx audit --record` writes them.
CREATE TABLE audit_runs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    completed_at TIMESTAMPTZ,
    slot BIGINT,
    foreign_mints BIGINT NOT NULL DEFAULT 0,
    base_units_foreign NUMERIC(28, 0) NOT NULL DEFAULT 0,
    CHECK ((completed_at IS NULL) = (slot IS NULL))
);
COMMENT ON TABLE audit_runs IS 'Full audits, under way or complete; incremental ones extend the last complete one.';
COMMENT ON COLUMN audit_runs.slot IS 'The authority''s history was walked up to here, and no checkpoint of this run covers a transaction above.';
COMMENT ON COLUMN audit_runs.foreign_mints IS 'Booked foreign mints up to that slot, and their sum: when they change, the checkpoints no longer fit.';

CREATE TABLE audit_checkpoints (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run BIGINT NOT NULL REFERENCES audit_runs (id) ON DELETE CASCADE,
    first_number BIGINT NOT NULL,
    last_number BIGINT NOT NULL,
    transactions BIGINT NOT NULL,
    readings BIGINT NOT NULL,
    base_units NUMERIC(28, 0) NOT NULL,
    left_out BIGINT[] NOT NULL DEFAULT '{}',
    late BIGINT[] NOT NULL DEFAULT '{}',
    chain_hash BYTEA NOT NULL CHECK (octet_length(chain_hash) = 32),
    checked_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX audit_checkpoints_by_run ON audit_checkpoints (run, id);
COMMENT ON TABLE audit_checkpoints IS 'Mint transactions of which ledger and chain agreed: sums, and a hash over number, signature and root in order, chained to the one before.';
COMMENT ON COLUMN audit_checkpoints.left_out IS 'Numbers in the range that were not final then, or differed: compared again until a later checkpoint has them.';
COMMENT ON COLUMN audit_checkpoints.late IS 'Numbers below the range that it covers, too.';

ALTER TABLE recorded_audits ADD COLUMN scope TEXT NOT NULL DEFAULT 'full' CHECK (scope IN ('full', 'incremental'));
COMMENT ON COLUMN recorded_audits.scope IS 'Whether everything was compared, or what was new since the last checkpoint and a sample.';
