# Isobar: `make run` starts one node, `make test` runs every check. See README.md.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# RocksDB is compiled once, outside the clone, for all profiles (scripts/rocksdb.sh).
export ROCKSDB_LIB_DIR := $(shell scripts/rocksdb.sh dir)
export ROCKSDB_STATIC := 1
RUN_FLAGS ?=
TEST_FLAGS ?=

.PHONY: help run build test soak seeded-bugs lint bench demo demo-cluster deny fmt deps

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

deps: ## install what a build needs (g++, libclang) and compile RocksDB once
	@scripts/deps.sh build
	@scripts/rocksdb.sh

build: deps ## build target/release/isobar
	cargo build --release --locked -p server

run: build ## build, then start one node on port 9090 that scrapes itself
	@scripts/run.sh $(RUN_FLAGS)

test: ## format, lints, docs, all tests and script checks, with the time of each stage
	@scripts/deps.sh test
	@scripts/rocksdb.sh
	@scripts/test.sh $(TEST_FLAGS)

soak: deps ## long fault runs: MINUTES=30 SEED=N, and figures of failover: KILLS=50 (what=faults or failover for one of them; BUSY=10 minutes of busy cores)
	@scripts/deps.sh test
	@scripts/soak.sh $(what)

seeded-bugs: deps ## build the program with bugs in it and show that the fault scenarios find each one
	@scripts/deps.sh test
	@scripts/seeded-bugs.sh

lint: deps ## format check, clippy with warnings denied, docs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps --document-private-items --quiet

fmt: ## format the sources
	cargo fmt --all

deny: ## check licences, bans and sources of the dependencies (needs cargo-deny)
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: cargo install --locked cargo-deny"; exit 1; }
	cargo deny check licenses bans sources

bench: deps ## micro benchmarks, then the macro run (generate, send, query)
	cargo bench --locked -p benches
	scripts/bench.sh

demo: build ## node-exporter, three example services and a Prometheus beside one Isobar node
	@scripts/deps.sh demo
	@scripts/demo.sh

demo-cluster: build ## three nodes under load, one killed and started again; ends by itself (DEMO_SECONDS=60)
	@scripts/deps.sh demo
	@scripts/demo-cluster.sh
