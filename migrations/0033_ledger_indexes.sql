-- Unbooked foreign mints are counted at each scrape and each scan, and are few, however many were booked.
CREATE INDEX foreign_mints_unbooked ON foreign_mints (slot) WHERE booked_reason IS NULL;

-- Every paid reading stood in two indexes with its id. Live links have live_mint_of_reading; the others are those of dead
-- transactions, a small part.
CREATE INDEX dead_mints_of_reading ON mint_transaction_readings (reading) WHERE NOT live;
DROP INDEX mint_transaction_readings_by_reading;
