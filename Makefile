# Tidegate's chores; `make` alone lists them.

# Where rustup puts cargo, for shells that have not read its profile yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: help demo test faults sim setup fmt lint bench deny doc clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: ## See it work: private servers, an app, jobs of every priority, a dependency that fails
	@scripts/setup.sh demo
	cargo build --release --locked
	demo/run.sh

test: ## Run every test, against private servers
	@scripts/setup.sh test
	cargo test --locked

faults: ## Run the fault suite: N= trials per row (20), ROW= one row alone, SEED= the first trial's, AT_ONCE= trials at a time
	@scripts/setup.sh test
	FAULTS_N=$(or $(N),20) FAULTS_SEED=$(SEED) FAULTS_AT_ONCE=$(AT_ONCE) cargo test --locked --test faults -- $(if $(ROW),row_$(shell printf '%02d' $(ROW)))

sim: ## Try the gate on plants of known capacity beside other limiters; traces and pictures go to target/sim
	cargo test --locked --test sim -- --long --csv target/sim --plots target/sim

setup: ## Find or install what the tests and the demo need: Redis, PostgreSQL, Node
	@scripts/setup.sh demo

fmt: ## Format the code
	cargo fmt

lint: ## Check formatting and clippy's advice
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

bench: ## Measure rates, latencies and memory against a private Redis
	@scripts/setup.sh test
	cargo run --release --locked -- bench

deny: ## Check licences, sources, bans and advisories of all dependencies (installs cargo-deny)
	@command -v cargo-deny >/dev/null || cargo install cargo-deny --locked
	cargo deny --locked check

doc: ## Build the library's documentation
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --locked

clean: ## Remove what was built
	cargo clean
