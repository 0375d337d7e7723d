-- Rent and fees are asked of the chain, and what it charged is read back: see docs/costs.md.
ALTER TABLE mint_transactions ADD COLUMN token_account_rent_lamports BIGINT
    CHECK (token_account_rent_lamports >= 0);
ALTER TABLE mint_transactions ADD COLUMN fee_lamports_charged BIGINT CHECK (fee_lamports_charged >= 0);
ALTER TABLE mint_transactions ADD COLUMN rent_lamports_charged BIGINT CHECK (rent_lamports_charged >= 0);
COMMENT ON COLUMN mint_transactions.fee_lamports IS 'For signatures and priority, as it was booked when the transaction was recorded; the rent of created accounts comes on top.';
COMMENT ON COLUMN mint_transactions.token_account_rent_lamports IS 'Rent of one token account, as the chain reported it when the transaction was recorded. NULL: recorded by a version that took 2,039,280 for granted.';
COMMENT ON COLUMN mint_transactions.fee_lamports_charged IS 'What the chain took for signatures and priority, read from the finalized transaction. NULL: not read, or not yet.';
COMMENT ON COLUMN mint_transactions.rent_lamports_charged IS 'What the fee payer paid beyond the fee: the rent of the token accounts that this transaction created. NULL with fee_lamports_charged.';

CREATE FUNCTION booked_rent_lamports(account_creations INTEGER, token_account_rent_lamports BIGINT)
RETURNS BIGINT LANGUAGE sql IMMUTABLE AS $$
    SELECT account_creations * COALESCE(token_account_rent_lamports, 2039280)
$$;
COMMENT ON FUNCTION booked_rent_lamports(INTEGER, BIGINT) IS 'Rent of the token accounts that a mint transaction was recorded to create, lamports.';

-- Finalized transactions whose charge is still to be read. Those of earlier versions are left out.
CREATE INDEX mint_transactions_charge_unread ON mint_transactions (number)
    WHERE state = 'finalized' AND fee_lamports_charged IS NULL AND token_account_rent_lamports IS NOT NULL;
