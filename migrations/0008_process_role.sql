ALTER TABLE processes
    ADD COLUMN role TEXT NOT NULL DEFAULT 'all' CHECK (role IN ('all', 'api', 'worker'));
COMMENT ON COLUMN processes.role IS 'What the process does: all, api (no queue workers) or worker (no public API). The default is for processes of an earlier version.';

-- Dead jobs are counted at each scrape; the index holds nothing else.
CREATE INDEX jobs_dead ON apalis.jobs (done_at) WHERE status = 'Killed';
