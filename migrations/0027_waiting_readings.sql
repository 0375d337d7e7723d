-- The oldest reading that waits, and those that do not wait for long, without a look at each of a backlog. Their number and the
-- counts by state tell how many are overdue.
CREATE INDEX readings_waiting ON readings (accepted_at)
    WHERE state IN ('pending', 'submitted', 'quarantined');
