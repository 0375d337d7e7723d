CREATE FUNCTION database_identity(OUT system_identifier BIGINT, OUT timeline INTEGER)
LANGUAGE plpgsql AS $$
BEGIN
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
COMMENT ON FUNCTION database_identity() IS 'Which cluster this is and on which timeline: another one means a restore or a fail-over. Where a managed service does not tell, the start of the server process stands in (timeline 0): then every restart counts as a change, which costs a pause of minting and misses nothing.';
