CREATE TABLE ledger (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    genesis_hash TEXT NOT NULL,
    mint_address TEXT NOT NULL,
    authority TEXT NOT NULL,
    decimals SMALLINT NOT NULL,
    system_identifier BIGINT NOT NULL,
    timeline INTEGER NOT NULL,
    watermark_slot BIGINT NOT NULL,
    next_number BIGINT NOT NULL DEFAULT 1 CHECK (next_number BETWEEN 1 AND 281474976710655),
    breaker TEXT NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'identity', 'mismatch')),
    breaker_reason TEXT,
    breaker_opened_at TIMESTAMPTZ,
    breaker_closes_after_height BIGINT
);
COMMENT ON TABLE ledger IS 'One row: which chain, which mint, which database, and whether signing is allowed.';
COMMENT ON COLUMN ledger.system_identifier IS 'Of the database cluster when the ledger was last trusted: another one means a restore or a fail-over.';
COMMENT ON COLUMN ledger.timeline IS 'Of the database cluster; rises at every promotion and point-in-time recovery.';
COMMENT ON COLUMN ledger.watermark_slot IS 'The authority''s history up to this slot was walked at finalized commitment and found known.';
COMMENT ON COLUMN ledger.next_number IS 'The next mint transaction''s number; above the highest ever seen on chain.';
COMMENT ON COLUMN ledger.breaker IS 'Open (not closed): nothing new is signed, for all processes.';
COMMENT ON COLUMN ledger.breaker_closes_after_height IS 'Finalized block height that must be passed before a clean walk may close the breaker: what was sent before has landed or expired by then.';

CREATE TABLE mint_transactions (
    number BIGINT PRIMARY KEY,
    signature BYTEA NOT NULL UNIQUE CHECK (octet_length(signature) = 64),
    wire BYTEA NOT NULL,
    merkle_root BYTEA NOT NULL CHECK (octet_length(merkle_root) = 32),
    base_units NUMERIC(20, 0) NOT NULL,
    blockhash TEXT NOT NULL,
    blockhash_slot BIGINT NOT NULL,
    last_valid_block_height BIGINT NOT NULL,
    endpoint TEXT NOT NULL,
    account_creations INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'recorded'
        CHECK (state IN ('recorded', 'confirmed', 'finalized', 'dead', 'quarantined')),
    recorded_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    sent_at TIMESTAMPTZ,
    sends INTEGER NOT NULL DEFAULT 0,
    slot BIGINT,
    block_time TIMESTAMPTZ,
    fee_lamports BIGINT NOT NULL,
    confirmed_at TIMESTAMPTZ,
    finalized_at TIMESTAMPTZ,
    unproven_secs BIGINT NOT NULL DEFAULT 0,
    ended_at TIMESTAMPTZ,
    error TEXT
);
-- The Resolver's work list: everything that is not at its end.
CREATE INDEX mint_transactions_open ON mint_transactions (number)
    WHERE state IN ('recorded', 'confirmed', 'quarantined');
COMMENT ON TABLE mint_transactions IS 'Every Solana transaction that was ever signed to pay readings, stored before it was sent. Never dropped.';
COMMENT ON COLUMN mint_transactions.number IS '48 bits, in the memo on chain.';
COMMENT ON COLUMN mint_transactions.wire IS 'The signed bytes: may be sent any number of times.';
COMMENT ON COLUMN mint_transactions.blockhash_slot IS 'Slot of the blockhash: no block before it can hold the transaction.';
COMMENT ON COLUMN mint_transactions.endpoint IS 'Configured name of the RPC endpoint that gave the blockhash and got the first send.';
COMMENT ON COLUMN mint_transactions.unproven_secs IS 'Seconds since expiry during which an endpoint answered and no proof was found.';
COMMENT ON COLUMN mint_transactions.error IS 'Why it is dead: expired and proven absent, or the chain''s error.';

CREATE TABLE mint_transaction_readings (
    transaction BIGINT NOT NULL REFERENCES mint_transactions (number),
    reading UUID NOT NULL REFERENCES readings (id),
    live BOOLEAN NOT NULL DEFAULT TRUE,
    PRIMARY KEY (transaction, reading)
);
-- The invariant of the ledger: a reading has at most one mint transaction that is not proven dead.
CREATE UNIQUE INDEX live_mint_of_reading ON mint_transaction_readings (reading) WHERE live;
CREATE INDEX mint_transaction_readings_by_reading ON mint_transaction_readings (reading);
COMMENT ON TABLE mint_transaction_readings IS 'Which transaction pays which reading; live until the transaction is proven dead.';

CREATE TABLE foreign_mints (
    signature TEXT PRIMARY KEY,
    slot BIGINT NOT NULL,
    base_units NUMERIC(20, 0) NOT NULL,
    memo TEXT,
    found_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    booked_reason TEXT
);
COMMENT ON TABLE foreign_mints IS 'Landed mints of our authority that the ledger lacks: they hold the breaker open until an admin has dealt with them.';
COMMENT ON COLUMN foreign_mints.booked_reason IS 'Set when an admin booked it without a reading; NULL keeps the breaker open.';

CREATE TABLE token_accounts (
    wallet BYTEA PRIMARY KEY CHECK (octet_length(wallet) = 32),
    known_since TIMESTAMPTZ NOT NULL DEFAULT now()
);
COMMENT ON TABLE token_accounts IS 'Wallets that were paid at finality, so their token account existed: when it is missing later its owner closed it, and rent is not paid a second time.';
