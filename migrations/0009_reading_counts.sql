CREATE TABLE reading_counts (
    state TEXT PRIMARY KEY,
    readings BIGINT NOT NULL
);
COMMENT ON TABLE reading_counts IS 'Readings by state, without the changes that still wait in reading_count_changes: both together are exact at every moment.';

CREATE TABLE reading_count_changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state TEXT NOT NULL,
    change BIGINT NOT NULL
);
COMMENT ON TABLE reading_count_changes IS 'What each statement changed: only ever appended, so that no writer waits for another, and folded into reading_counts every few seconds.';

CREATE FUNCTION count_inserted_readings() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reading_count_changes (state, change)
    SELECT state, count(*) FROM inserted GROUP BY state;
    RETURN NULL;
END
$$;
CREATE FUNCTION count_updated_readings() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reading_count_changes (state, change)
    SELECT state, sum(change)
    FROM (
        SELECT state, 1 AS change FROM after_update
        UNION ALL
        SELECT state, -1 FROM before_update
    ) AS changes
    GROUP BY state
    HAVING sum(change) <> 0;
    RETURN NULL;
END
$$;
CREATE FUNCTION count_deleted_readings() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO reading_count_changes (state, change)
    SELECT state, -count(*) FROM deleted GROUP BY state;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_inserted AFTER INSERT ON readings
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_readings();
CREATE TRIGGER count_updated AFTER UPDATE ON readings
    REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated_readings();
-- Readings are never deleted by the service; by hand, the counts stay true.
CREATE TRIGGER count_deleted AFTER DELETE ON readings
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION count_deleted_readings();

INSERT INTO reading_counts (state, readings)
SELECT state, count(*) FROM readings GROUP BY state;
