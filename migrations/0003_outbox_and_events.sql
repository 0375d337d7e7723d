CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id UUID NOT NULL,
    event_type TEXT NOT NULL,
    user_id TEXT,
    body TEXT NOT NULL,
    written_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE outbox IS 'Events in their writers'' transactions, without a number; the sequencer moves committed ones to events.';
COMMENT ON COLUMN outbox.user_id IS 'Owner who may see the event; NULL: admins only.';
COMMENT ON COLUMN outbox.body IS 'The event''s JSON object without seq, serialised once.';

CREATE TABLE feed_head (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    last_seq BIGINT NOT NULL,
    oldest_seq BIGINT NOT NULL
);
INSERT INTO feed_head (last_seq, oldest_seq) VALUES (0, 1);
COMMENT ON TABLE feed_head IS 'One row, updated first by the sequencer''s transaction: numbers have no gaps and one writer.';
COMMENT ON COLUMN feed_head.last_seq IS 'Highest number given.';
COMMENT ON COLUMN feed_head.oldest_seq IS 'Lowest number that is still kept.';

CREATE TABLE events (
    seq BIGINT NOT NULL PRIMARY KEY,
    event_id UUID NOT NULL,
    event_type TEXT NOT NULL,
    user_id TEXT,
    body TEXT NOT NULL,
    written_at TIMESTAMPTZ NOT NULL,
    sequenced_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (seq);
CREATE TABLE events_0 PARTITION OF events FOR VALUES FROM (0) TO (1000000);
CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (1000000) TO (2000000);
CREATE INDEX events_by_user ON events (user_id, seq);
COMMENT ON TABLE events IS 'The feed: numbered without gaps, in partitions of 1,000,000 numbers that are made ahead and dropped whole.';
