# Every developer command. `make help` lists them; .ci/run runs the ones that guard the main branch.

SHELL := /bin/bash
TIME ?= 600
TARGET ?=
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test built unit fmt fmt-check lint doc lean deny msrv conformance image values soak bench fuzz ci

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done

setup: ## install what tests, fuzzing and licence checks need besides Rust
	@tools/install-parts all

demo: ## pull an image through the proxy, stop its upstream, pull it again (needs nothing but Rust)
	cargo run --locked --release --bin kuik -- demo

serve: ## run the pull-through cache on localhost:7439, with its data in ./data
	cargo run --locked --release --bin kuik -- serve --data-dir data

test: ## install missing parts, then all tests: unit, property, doc, and with real registries and clients
	@tools/test

built: ## the tests that make test ignores: with crane, Docker's registry 3, MinIO, Helm and a Kubernetes API server, built from Go, and on very large stores
	@tools/test built

unit: ## the tests that need no part besides Rust: unit, property and doc tests
	cargo test --locked --workspace --all-features --no-fail-fast --lib --bins
	cargo test --locked --workspace --all-features --no-fail-fast --doc

fmt: ## format all code
	cargo fmt --all

fmt-check: ## fail where code is not formatted
	cargo fmt --all --check

lint: ## clippy, warnings as errors, with every set of features
	@tools/lint

doc: ## build the documentation, warnings as errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps

lean: ## check that kuik-core without features has no runtime, TLS or Kubernetes
	@tools/core-is-lean

deny: ## check licences, banned crates and sources (not advisories: see deny.toml)
	@tools/install-parts deny
	@source tools/env && cargo deny --locked --log-level warn check licenses bans sources

msrv: ## check with the oldest Rust that Cargo.toml promises
	@tools/msrv

conformance: ## the OCI distribution conformance suite against kuik-registry, on a directory and on S3, with nothing left out (needs Go)
	@tools/install-parts conformance go
	@tools/conformance
	@tools/conformance s3

image: ## the image with all binaries, as an OCI layout in target/image (needs no container engine)
	@tools/image

values: ## write docs/chart-values.md from the comments in the chart's values.yaml
	@tools/chart-values write

soak: ## collect garbage under a load of pushes, pulls and deletes for TIME=600 seconds, and print the figures
	KUIK_SOAK_SECONDS=$(TIME) cargo test --locked --release -p kuik-bin --all-features --test soak -- --nocapture

bench: ## criterion benches against named peers
	cargo bench --locked -p kuik-benches

fuzz: ## fuzz every target for TIME=600 seconds each, or TARGET=name alone
	@tools/install-parts fuzz
	@tools/fuzz $(TIME) $(TARGET)

ci: ## all that CI runs
	@bash .ci/run
