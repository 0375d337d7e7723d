CREATE TABLE batches (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('sweep', 'trigger')),
    tick BIGINT CHECK (tick IS NULL OR kind = 'sweep'),
    requested_by TEXT,
    meter BIGINT REFERENCES meters (id),
    owner TEXT COLLATE "C",
    ending_before TIMESTAMPTZ,
    include_failed BOOLEAN NOT NULL DEFAULT FALSE,
    state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'completed', 'failed')),
    slice INTEGER NOT NULL DEFAULT 0,
    idle_ms BIGINT NOT NULL DEFAULT 0,
    requested_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    total_readings BIGINT NOT NULL DEFAULT 0,
    successful_mints BIGINT NOT NULL DEFAULT 0,
    failed_mints BIGINT NOT NULL DEFAULT 0,
    error TEXT,
    CHECK (kind = 'sweep' OR requested_by IS NOT NULL),
    CHECK ((finished_at IS NULL) = (state IN ('queued', 'running'))),
    CHECK (successful_mints + failed_mints <= total_readings)
);
-- A tick of the clock is one sweep, however many processes ask for it.
CREATE UNIQUE INDEX batches_by_tick ON batches (tick) WHERE tick IS NOT NULL;
-- The newest sweep, and the newest of each kind.
CREATE INDEX batches_by_kind ON batches (kind, id);
CREATE INDEX batches_unfinished ON batches (kind, id) WHERE finished_at IS NULL;
COMMENT ON TABLE batches IS 'Runs of the sweep and of an admin''s trigger, with their figures. Pruned 30 days after their end; of sweeps that found nothing only the newest is kept.';
COMMENT ON COLUMN batches.id IS 'UUIDv7: in the order of the requests.';
COMMENT ON COLUMN batches.tick IS 'Moment that a sweep was due, seconds since 1970; NULL when something else asked for it.';
COMMENT ON COLUMN batches.requested_by IS 'Subject of the admin who triggered it.';
COMMENT ON COLUMN batches.meter IS 'Filter of a trigger: only readings of this meter.';
COMMENT ON COLUMN batches.owner IS 'Filter of a trigger: only readings of this owner''s meters.';
COMMENT ON COLUMN batches.ending_before IS 'Filter of a trigger: only readings whose interval ends before this moment.';
COMMENT ON COLUMN batches.include_failed IS 'Whether a trigger also retries failed readings.';
COMMENT ON COLUMN batches.state IS 'queued, running, completed (it went to its end, whatever became of single readings), failed (it ended early; error says why).';
COMMENT ON COLUMN batches.slice IS 'How often it was handed on to a new job: only the holder of the present number hands it on.';
COMMENT ON COLUMN batches.idle_ms IS 'Milliseconds in a row that its runs spent without getting any further.';
COMMENT ON COLUMN batches.total_readings IS 'Readings that it has claimed.';
COMMENT ON COLUMN batches.successful_mints IS 'Of those, how many are minted; for a sweep submitted is enough.';
COMMENT ON COLUMN batches.failed_mints IS 'Of those, how many it did not get minted. They are not lost: each reading''s own state tells what comes next.';
COMMENT ON COLUMN batches.error IS 'Why it ended, or is ending, early.';

CREATE TABLE batch_readings (
    batch UUID NOT NULL REFERENCES batches (id),
    reading UUID NOT NULL REFERENCES readings (id),
    ordinal BIGINT,
    success BOOLEAN,
    signature BYTEA CHECK (octet_length(signature) = 64),
    error TEXT,
    PRIMARY KEY (batch, reading),
    CHECK ((ordinal IS NULL) = (success IS NULL))
);
-- Pages of results: who follows them while the batch runs misses none, since new ones come behind.
CREATE UNIQUE INDEX batch_readings_closed ON batch_readings (batch, ordinal) WHERE ordinal IS NOT NULL;
CREATE INDEX batch_readings_open ON batch_readings (batch, reading) WHERE ordinal IS NULL;
COMMENT ON TABLE batch_readings IS 'What a batch has claimed, and what became of each reading in it. Pruned with its batch.';
COMMENT ON COLUMN batch_readings.ordinal IS '1, 2, 3 … in the order in which the outcomes became known; NULL while it is open.';
COMMENT ON COLUMN batch_readings.success IS 'Whether this batch got it minted; NULL while it is open.';
COMMENT ON COLUMN batch_readings.signature IS 'Of the mint transaction that paid it when its outcome became known.';
COMMENT ON COLUMN batch_readings.error IS 'Why it did not, in a sentence.';
