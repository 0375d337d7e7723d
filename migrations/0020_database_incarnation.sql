-- A dump that is restored beside the original, or in its place, goes backwards too, and is in the same cluster on the same
-- timeline. It is another database, or at least another table.
DROP FUNCTION database_identity();
CREATE FUNCTION database_identity(OUT system_identifier BIGINT, OUT timeline INTEGER, OUT incarnation BIGINT)
LANGUAGE plpgsql AS $$
BEGIN
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
COMMENT ON FUNCTION database_identity() IS 'Which cluster, on which timeline, and which database and ledger table in it: another one means a restore or a fail-over. Where a managed service does not tell, the start of the server process stands in for the first two (timeline 0): then every restart counts as a change, which costs a pause of minting and misses nothing.';

ALTER TABLE ledger ADD COLUMN incarnation BIGINT;
UPDATE ledger
SET incarnation = identity.incarnation
FROM database_identity() AS identity;
ALTER TABLE ledger ALTER COLUMN incarnation SET NOT NULL;
COMMENT ON COLUMN ledger.incarnation IS 'Oids of the database and of this table, which a restored dump does not keep.';
