CREATE TABLE chain_breaker (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    open BOOLEAN NOT NULL DEFAULT FALSE,
    reason TEXT,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
INSERT INTO chain_breaker DEFAULT VALUES;
COMMENT ON TABLE chain_breaker IS 'One row: what admins were last told of the chain breaker. Each process has a breaker of its own in memory; the row makes it one notification for the deployment when it opens and one when it closes.';
COMMENT ON COLUMN chain_breaker.changed_at IS 'When they were told.';
