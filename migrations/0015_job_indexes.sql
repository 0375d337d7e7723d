-- With a million finished jobs both statements read the whole table, once a second and with every sweep.
-- What a worker that ended still holds (queue/process.rs).
CREATE INDEX jobs_held ON apalis.jobs (lock_by) WHERE status IN ('Queued', 'Running');
-- What is old enough to be dropped (queue/prune.rs); the dead ones have jobs_dead.
CREATE INDEX jobs_ended ON apalis.jobs (done_at) WHERE status IN ('Done', 'Failed');
