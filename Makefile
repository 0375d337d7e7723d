# Each target calls cargo or the program. `run`, `token`, `audit` and `listen` share one build, `test` its dependencies.

GRIDTOKENX := $(or $(CARGO_TARGET_DIR),target)/debug/gridtokenx
BUILD := cargo build --locked --features localnet
# More threads than cores, because the integration tests mostly wait for the chain's slots.
TEST := RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),14) cargo test --locked --features localnet,failpoints

# Private items are documented for readers of the code, so links to them are good, and help texts have bare URLs.
DOC := RUSTDOCFLAGS="--deny rustdoc::broken_intra_doc_links --allow rustdoc::private_intra_doc_links --allow rustdoc::bare_urls" \
	cargo doc --quiet --locked --no-deps --document-private-items --features localnet,failpoints

.DEFAULT_GOAL := help
.PHONY: help run test token audit listen lint coverage check-dashboards bench-feed bench-mint

help: ## Lists the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 24

run: ## Starts the whole system and plays a year of real meter data; ARGS="--exit --report FILE --day DAY --speed N|max --no-play --fresh"
	@scripts/ensure-postgres && $(BUILD) && exec $(GRIDTOKENX) run $(ARGS)

test: ## Runs all tests; ARGS="NAME" runs those whose name contains it
	@DATABASE_URL= scripts/ensure-postgres && $(TEST) $(ARGS)

token: ## Prints a development token: make -s token ROLE=admin|user [SUB=name] [TTL=24h]
	@$(BUILD) -q && exec $(GRIDTOKENX) token --role '$(ROLE)' $(if $(SUB),--sub '$(SUB)') $(if $(TTL),--ttl '$(TTL)')

audit: ## Proves that the ledger of the running system agrees with its chain, as JSON
	@$(BUILD) -q && exec $(GRIDTOKENX) audit --json $(ARGS)

listen: ## Prints the events of the running system as they arrive; SUB=name for one owner's
	@$(BUILD) -q && exec $(GRIDTOKENX) listen $(if $(SUB),--sub '$(SUB)') $(ARGS)

lint: ## Checks formatting and lints, and the links in the code's documentation
	@cargo fmt --check && cargo clippy --locked --all-targets --features localnet,failpoints -- --deny warnings && $(DOC)

check-dashboards: ## Checks dashboards and alert rules with a real Prometheus; ARGS="--static" without a running system
	@DATABASE_URL= scripts/ensure-postgres && $(BUILD) && exec dashboards/check $(ARGS)

bench-feed: ## Measures the event feed and other servers for comparison; ARGS="--connections N --seconds N --soak-seconds N", PROFILE=release
	@DATABASE_URL= scripts/ensure-postgres && cargo bench --locked --features localnet --profile $(or $(PROFILE),dev) --bench benchmarks -- feed $(ARGS)

bench-mint: ## Measures intake and minting of a backlog beside the chain alone; ARGS="--readings N --wallets N --batch-sizes 50,200", PROFILE=dev
	@DATABASE_URL= scripts/ensure-postgres && cargo bench --locked --features localnet --profile $(or $(PROFILE),release) --bench benchmarks -- mint $(ARGS)

coverage: ## Measures the line coverage of the tests (needs cargo-tarpaulin)
	@DATABASE_URL= scripts/ensure-postgres && scripts/coverage $(ARGS)
