-- What is logged, for all processes, while an admin says so.
ALTER TABLE settings
    ADD COLUMN log_level TEXT,
    ADD COLUMN log_level_until TIMESTAMPTZ,
    ADD CONSTRAINT log_level_ends CHECK ((log_level IS NULL) = (log_level_until IS NULL));
COMMENT ON COLUMN settings.log_level IS 'Filter that all processes log by until log_level_until; NULL: each its own LOG_LEVEL.';
COMMENT ON COLUMN settings.log_level_until IS 'Whatever was switched on is switched off by itself.';
