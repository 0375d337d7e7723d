-- What one process last found of the RPC endpoints, so that the others of the deployment need not ask for it. A cache: rows may be
-- deleted at any time.
CREATE TABLE rpc_probes (
    -- SHA-256 of the list of endpoints: processes with another list have a row of their own.
    endpoints BYTEA PRIMARY KEY CHECK (octet_length(endpoints) = 32),
    -- When a process last began to probe. The others wait for its result.
    claimed_at TIMESTAMPTZ NOT NULL,
    probed_at TIMESTAMPTZ,
    -- JSON. NULL: the last probe found a fault, so that each process probes by itself.
    found TEXT
);
