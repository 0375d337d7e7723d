-- What audits found that were told to record it. Alerts and boards ask for the last one.
CREATE TABLE recorded_audits (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    finished_at TIMESTAMPTZ NOT NULL,
    slot BIGINT NOT NULL,
    transactions BIGINT NOT NULL,
    readings_minted BIGINT NOT NULL,
    differences BIGINT NOT NULL CHECK (differences >= 0)
);
COMMENT ON TABLE recorded_audits IS 'Verdicts of `gridtokenx audit --record`, one row each, the last one by id. Never dropped: one a day is little.';
COMMENT ON COLUMN recorded_audits.slot IS 'Supply and history were compared as of this slot.';
COMMENT ON COLUMN recorded_audits.transactions IS 'Mint transactions that the ledger called landed.';
COMMENT ON COLUMN recorded_audits.readings_minted IS 'Readings of those transactions.';
COMMENT ON COLUMN recorded_audits.differences IS 'Between ledger and chain; 0: they agree.';
