-- A reading that its batch leaves waiting has not failed.
ALTER TABLE batches ADD COLUMN waiting_mints BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD CONSTRAINT batches_outcomes_check CHECK (successful_mints + failed_mints + waiting_mints <= total_readings);
COMMENT ON COLUMN batches.waiting_mints IS 'Of the claimed readings, how many wait for funds, for their backoff, for auto-mint or for confirmation, and are finished without this batch.';
COMMENT ON COLUMN batches.failed_mints IS 'Of the claimed readings, how many failed. They are not lost: each reading''s own state tells what comes next.';

ALTER TABLE batch_readings ADD COLUMN waiting BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN batch_readings.waiting IS 'Whether it was left waiting: not minted by this batch, and not failed.';
