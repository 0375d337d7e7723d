-- Files that are put back (a volume's snapshot, a virtual machine that is set back, a copy of the stopped cluster) keep
-- identifier, timeline and oids. What they cannot keep is the start of the server that runs on them.
DROP FUNCTION database_identity();
CREATE FUNCTION database_identity(
    OUT system_identifier BIGINT, OUT timeline INTEGER, OUT incarnation BIGINT, OUT server_start BIGINT
)
LANGUAGE plpgsql AS $$
BEGIN
    server_start := CASE
        -- `gridtokenx run` starts its own server with itself, and would wait at each start.
        WHEN current_setting('gridtokenx.private_cluster', TRUE) = 'on' THEN 0
        ELSE (EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::BIGINT
    END;
    SELECT (database.oid::BIGINT << 32) | 'ledger'::REGCLASS::OID::BIGINT
    INTO incarnation
    FROM pg_database AS database
    WHERE database.datname = current_database();
    -- The timeline comes from the write-ahead log: pg_control_checkpoint() tells that of the last checkpoint, which after
    -- a promotion may be minutes old.
    SELECT control.system_identifier,
           ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::BIT(32)::INTEGER
    INTO system_identifier, timeline
    FROM pg_control_system() AS control;
EXCEPTION
    WHEN insufficient_privilege OR undefined_function OR feature_not_supported THEN
        system_identifier := (EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000)::BIGINT;
        timeline := 0;
END
$$;
COMMENT ON FUNCTION database_identity() IS 'Which cluster, on which timeline, which database and ledger table in it, and which start of the server: another one means that the ledger may have gone backwards, by a restore, a fail-over, or files that were put back while the server was down. So every restart of the server costs a pause of minting, but in the private cluster of `gridtokenx run`. Where a managed service does not tell the first two, the start stands in for them (timeline 0).';

ALTER TABLE ledger ADD COLUMN server_start BIGINT NOT NULL DEFAULT 0;
UPDATE ledger
SET server_start = identity.server_start
FROM database_identity() AS identity;
COMMENT ON COLUMN ledger.server_start IS 'When the database server was started, microseconds since 1970; 0 in the private cluster of `gridtokenx run`.';
