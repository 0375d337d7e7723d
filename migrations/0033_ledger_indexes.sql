-- Unbooked foreign mints are counted at each scrape and each scan, and are few, however many were booked.
CREATE INDEX foreign_mints_unbooked ON foreign_mints (slot) WHERE booked_reason IS NULL;

-- Every paid reading stands in two indexes with its id. Live links have live_mint_of_reading; the others are those of dead
-- transactions, a small part. Processes of the previous release need mint_transaction_readings_by_reading until they have
-- ended: the next release drops it.
CREATE INDEX dead_mints_of_reading ON mint_transaction_readings (reading) WHERE NOT live;
