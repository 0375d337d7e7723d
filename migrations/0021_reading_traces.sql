-- A reading's trace goes on in other processes: the one that mints it, and the one that settles its transaction. Written only
-- while traces are exported, and nothing depends on a row.
CREATE TABLE reading_traces (
    reading UUID PRIMARY KEY,
    traceparent TEXT NOT NULL CHECK (octet_length(traceparent) = 55)
);
COMMENT ON TABLE reading_traces IS 'Where the trace of a reading goes on: stored with the reading and its job, dropped once its transaction is finalized, or after two days.';
COMMENT ON COLUMN reading_traces.traceparent IS 'W3C Trace Context: the span that stored the reading.';
