ALTER TABLE ledger ADD COLUMN fee_payer TEXT;
COMMENT ON COLUMN ledger.fee_payer IS 'Address that pays for what is minted: of the process that mints and started last. Processes without keys watch it; NULL until one of this version has started.';
