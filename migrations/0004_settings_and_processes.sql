CREATE TABLE settings (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    auto_mint_enabled BOOLEAN NOT NULL,
    auto_mint_percentage SMALLINT NOT NULL CHECK (auto_mint_percentage BETWEEN 0 AND 100),
    changed_by TEXT,
    changed_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE settings IS 'One row: what an admin changes at run time. Written from the configuration at the first start only.';

CREATE SEQUENCE process_numbers;
CREATE TABLE processes (
    number BIGINT PRIMARY KEY DEFAULT nextval('process_numbers'),
    worker_prefix TEXT NOT NULL UNIQUE,
    pid INTEGER NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE processes IS 'Running processes. Each holds the session advisory lock (1735680884, number): a free lock means dead, and its jobs are released.';
COMMENT ON COLUMN processes.worker_prefix IS 'Unique per process start; names of its queue workers begin with it.';
