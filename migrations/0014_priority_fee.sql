ALTER TABLE mint_transactions ADD COLUMN priority_fee_lamports BIGINT NOT NULL DEFAULT 0
    CHECK (priority_fee_lamports >= 0);
COMMENT ON COLUMN mint_transactions.fee_lamports IS 'What the chain takes for signatures and priority, exact; the rent of created accounts comes on top.';
COMMENT ON COLUMN mint_transactions.priority_fee_lamports IS 'The priority fee''s part of fee_lamports: requested compute units times their price. 0 when none was offered.';
