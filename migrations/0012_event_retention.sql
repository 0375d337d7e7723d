COMMENT ON TABLE events IS 'The feed: numbered without gaps, in partitions by number that are made ahead and dropped whole once all their events are older than FEED_RETENTION_DAYS.';
COMMENT ON COLUMN events.sequenced_at IS 'When the number was given: rises with it, and is what an event''s age is counted from.';
COMMENT ON COLUMN feed_head.oldest_seq IS 'Lowest number that is still kept; one above last_seq when none is. Rises in the transaction that drops a partition.';
