-- The newest slot in which a payment is final, asked for before a reading is refused for its token account. Without it the question
-- reads every transaction that was ever made.
CREATE INDEX mint_transactions_finalized ON mint_transactions (slot) WHERE state = 'finalized';
