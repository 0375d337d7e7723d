-- A reading that its batch leaves waiting has not failed.
ALTER TABLE batches ADD COLUMN waiting_mints BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batches ADD CONSTRAINT batches_waiting_check CHECK (waiting_mints <= failed_mints);
COMMENT ON COLUMN batches.waiting_mints IS 'Of those in failed_mints, how many have not failed: they wait for funds, for their backoff, for auto-mint or for confirmation, and are finished without this batch. A part of it, so that an earlier version counts right beside this one.';

ALTER TABLE batch_readings ADD COLUMN waiting BOOLEAN NOT NULL DEFAULT FALSE;
COMMENT ON COLUMN batch_readings.waiting IS 'Whether it was left waiting: not minted by this batch, and not failed.';
