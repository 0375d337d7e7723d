CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE EXTENSION IF NOT EXISTS hstore;

CREATE TABLE meters (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    serial TEXT COLLATE "C" NOT NULL UNIQUE,
    owner TEXT COLLATE "C" NOT NULL,
    wallet BYTEA NOT NULL CHECK (octet_length(wallet) = 32),
    interval_minutes INTEGER NOT NULL CHECK (interval_minutes BETWEEN 1 AND 1440),
    rollout_bucket SMALLINT NOT NULL CHECK (rollout_bucket BETWEEN 0 AND 99),
    registered_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX meters_by_owner ON meters (owner, serial);
COMMENT ON TABLE meters IS 'Smart meters and the wallets that their energy is paid to.';
COMMENT ON COLUMN meters.serial IS 'What the API calls meter_id: 1 to 64 characters after NFC.';
COMMENT ON COLUMN meters.owner IS 'The subject (JWT sub) that owns the meter.';
COMMENT ON COLUMN meters.interval_minutes IS 'Length of a reading whose interval_start is not given.';
COMMENT ON COLUMN meters.rollout_bucket IS 'Stable hash of the serial, 0 to 99: minted automatically when below TOKENIZATION_AUTO_MINT_PERCENTAGE.';

CREATE TABLE readings (
    id UUID PRIMARY KEY,
    meter BIGINT NOT NULL REFERENCES meters (id),
    interval_start TIMESTAMPTZ NOT NULL,
    interval_end TIMESTAMPTZ NOT NULL,
    kwh NUMERIC NOT NULL CHECK (kwh > 0),
    base_units NUMERIC(20, 0) NOT NULL CHECK (base_units BETWEEN 1 AND 18446744073709551615),
    wallet BYTEA NOT NULL CHECK (octet_length(wallet) = 32),
    salt BYTEA NOT NULL CHECK (octet_length(salt) = 16),
    meter_signature TEXT,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'submitted', 'minted', 'finalized', 'failed', 'quarantined')),
    revision BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    pack_alone BOOLEAN NOT NULL DEFAULT FALSE,
    last_error TEXT,
    accepted_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    CHECK (interval_start < interval_end),
    -- Finds the same reading again for ever, under any id.
    CONSTRAINT readings_once UNIQUE (meter, interval_start, interval_end)
);
-- The unminted are few beside all readings ever: counts, ages, sweep and stragglers read this index alone.
CREATE INDEX readings_unminted ON readings (state, next_attempt_at, id)
    WHERE state IN ('pending', 'submitted', 'failed', 'quarantined');
CREATE INDEX readings_by_meter ON readings (meter, id);
COMMENT ON TABLE readings IS 'Accepted readings: the books. Never partitioned, never dropped. State, wallet, attempts are written by the ledger alone.';
COMMENT ON COLUMN readings.kwh IS 'Energy of the interval, kWh, exact.';
COMMENT ON COLUMN readings.base_units IS 'What the reading pays, 1 token = 10^decimals base units; fixed when accepted, rounded down.';
COMMENT ON COLUMN readings.wallet IS 'Whom the reading pays; fixed when accepted, changed only by an admin''s retry.';
COMMENT ON COLUMN readings.salt IS 'Random: keeps the Merkle leaf from being guessed.';
COMMENT ON COLUMN readings.revision IS 'Raised by every change of state, wallet or attempts: a packed reading is recorded only if it did not change meanwhile.';
COMMENT ON COLUMN readings.attempts IS 'Times that preflight, simulation or the chain refused this reading.';
COMMENT ON COLUMN readings.next_attempt_at IS 'Not minted before this moment; the truth of which the job only reminds.';
COMMENT ON COLUMN readings.pack_alone IS 'Found bad on chain once: its next transaction carries nothing else.';

CREATE TABLE metered_intervals (
    reading UUID PRIMARY KEY REFERENCES readings (id),
    meter BIGINT NOT NULL,
    metered TSTZRANGE NOT NULL CHECK (NOT isempty(metered)),
    CONSTRAINT metered_once EXCLUDE USING gist (meter WITH =, metered WITH &&)
);
COMMENT ON TABLE metered_intervals IS 'Guards overlap: no moment of a meter is paid twice. Pruned once older than the age limit and 25 hours.';
