-- The scan of the authority's history, which may take many sittings: a provider's limit, a restart or another holder of the
-- Resolver's lock interrupts it, and it goes on where it was.
CREATE TABLE history_scan (
    single BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (single),
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    scan BIGINT NOT NULL DEFAULT 0,
    began_at TIMESTAMPTZ,
    floor_slot BIGINT,
    head_slot BIGINT,
    head_height BIGINT,
    breaker TEXT,
    breaker_opened_at TIMESTAMPTZ,
    breaker_closes_after_height BIGINT,
    supply NUMERIC(20, 0),
    cursor_signature BYTEA CHECK (octet_length(cursor_signature) = 64),
    cursor_slot BIGINT,
    listed BIGINT NOT NULL DEFAULT 0,
    mint_cursor_signature BYTEA CHECK (octet_length(mint_cursor_signature) = 64),
    mint_cursor_slot BIGINT,
    mint_created_by BYTEA CHECK (octet_length(mint_created_by) = 64),
    wanted BIGINT NOT NULL DEFAULT 0,
    covers BIGINT NOT NULL DEFAULT 0,
    known BIGINT NOT NULL DEFAULT 0,
    known_as_of TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    failures INTEGER NOT NULL DEFAULT 0,
    failed_at TIMESTAMPTZ,
    error TEXT,
    CHECK ((began_at IS NULL) = (head_slot IS NULL) AND (began_at IS NULL) = (floor_slot IS NULL))
);
INSERT INTO history_scan DEFAULT VALUES;
COMMENT ON TABLE history_scan IS 'One row: the scan under way, and how the last ones ended.';
COMMENT ON COLUMN history_scan.created_at IS 'Before the first whole scan, the age of what is known counts from here.';
COMMENT ON COLUMN history_scan.scan IS 'Number of the scan under way, or of the last one: each step compares it, so that a scan that was given up changes nothing.';
COMMENT ON COLUMN history_scan.began_at IS 'Of the scan under way; NULL between two. With the number it identifies the scan; nothing is decided by a time.';
COMMENT ON COLUMN history_scan.floor_slot IS 'The watermark when it began: it lists what is above.';
COMMENT ON COLUMN history_scan.head_slot IS 'The finalized slot when it began: a little below, the watermark rises to it.';
COMMENT ON COLUMN history_scan.head_height IS 'The height of that block, if the breaker waited for one; else 0. It closes a breaker that waited for less.';
COMMENT ON COLUMN history_scan.breaker IS 'The breaker when it began, with the next two columns: a breaker that changed since stays open.';
COMMENT ON COLUMN history_scan.supply IS 'Of a first scan: the token''s supply when it began, which known mints have to account for.';
COMMENT ON COLUMN history_scan.cursor_signature IS 'Down to this transaction everything is read; the next page begins below it.';
COMMENT ON COLUMN history_scan.mint_cursor_signature IS 'Of a first scan: down to here the mint''s own history was listed, in search of its creation.';
COMMENT ON COLUMN history_scan.mint_created_by IS 'The oldest transaction of the mint that was found: an endpoint that shows it has the beginning of the history.';
COMMENT ON COLUMN history_scan.wanted IS 'Number of the last request: a process that mints has started. It signs once known has reached its request.';
COMMENT ON COLUMN history_scan.covers IS 'Of the scan under way: wanted, before it read the chain.';
COMMENT ON COLUMN history_scan.known IS 'The last request that a whole scan covers.';
COMMENT ON COLUMN history_scan.known_as_of IS 'When the last whole scan began: its age is that of what is known of the chain. For display.';
COMMENT ON COLUMN history_scan.failures IS 'In a row, since a scan was last finished or got further; a provider''s limit is a pause and no failure.';

-- Transactions that mention the authority, are final, and are neither in the ledger nor a mint of ours: each is read once.
CREATE TABLE history_transactions (
    signature BYTEA PRIMARY KEY CHECK (octet_length(signature) = 64),
    slot BIGINT NOT NULL,
    problem TEXT,
    reads INTEGER NOT NULL DEFAULT 1,
    next_read_at TIMESTAMPTZ,
    absences INTEGER NOT NULL DEFAULT 0,
    CHECK ((problem IS NULL) = (next_read_at IS NULL))
);
-- The unreadable ones are few: they hold the watermark down, and status names them.
CREATE INDEX history_transactions_unreadable ON history_transactions (slot) WHERE problem IS NOT NULL;
COMMENT ON TABLE history_transactions IS 'Transactions of others that mention the mint authority, and minted nothing by its signature.';
COMMENT ON COLUMN history_transactions.problem IS 'Why it could not be read; NULL: it was, and minted nothing of ours.';
COMMENT ON COLUMN history_transactions.next_read_at IS 'An unreadable one is not asked about before: ever more rarely.';
COMMENT ON COLUMN history_transactions.absences IS 'Reads in a row in which every endpoint answered that it has no such transaction: after several, an unreadable one is removed.';

-- Copied from the ledger when a scan begins: an endpoint that does not list each of them hides a part of the history.
CREATE TABLE history_scan_expected (
    signature BYTEA PRIMARY KEY CHECK (octet_length(signature) = 64),
    slot BIGINT NOT NULL,
    scan BIGINT NOT NULL
);
COMMENT ON TABLE history_scan_expected IS 'Finalized transactions of the ledger in the range of the scan under way that it has not listed yet.';
