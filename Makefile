# Every developer command. `make help` lists them; .ci/run runs the ones that guard the main branch.

SHELL := /bin/bash
TIME ?= 600
TARGET ?=
SCENARIO ?=
STORAGE ?=
PODS ?= 5000
IMAGES ?= 500
QUIET ?= 300
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup demo serve crds values image test built unit fmt fmt-check lint doc lean deny msrv conformance e2e soak storm stampede cold-pull model bench bench-hits bench-webhook scale kube-old e2e-old fuzz ci

help: ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: ## install what tests, fuzzing and licence checks need besides Rust
	@tools/install-parts all

demo: ## pull an image through the proxy, stop its upstream, pull it again (needs nothing but Rust)
	cargo run --locked --release --bin kuik -- demo

serve: ## run the pull-through cache on localhost:7439, with its data in ./data
	cargo run --locked --release --bin kuik -- serve --data-dir data

crds: ## write the definitions of the custom resources into the chart
	cargo run --locked --quiet --bin kuik -- crds > kuik-bin/chart/kube-image-keeper/files/crds.yaml

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

e2e: ## install the image and the chart on a real cluster, which this starts and takes down, and take registries and parts of it away (needs Go and root); SCENARIO=matrix:: for some of it
	@tools/e2e $(SCENARIO)

soak: ## collect garbage under pushes, pulls and deletes for TIME=600 seconds, in a directory or with STORAGE=s3 in a bucket
	$(if $(filter s3,$(STORAGE)),@tools/install-parts go)
	KUIK_SOAK_SECONDS=$(TIME) cargo test --locked --release -p kuik-bin --all-features --test soak -- --nocapture \
		$(if $(filter s3,$(STORAGE)),--ignored)

storm: ## 200 clients pull through an upstream that fails at random for TIME=600 seconds, from a seed that is printed
	KUIK_STORM_SECONDS=$(TIME) cargo test --locked -p kuik-proxy --all-features --test storm -- --nocapture

scale: ## keep the images of PODS=5000 pods over IMAGES=500 images, then change nothing for QUIET=300 seconds: time, writes, memory, CPU
	@tools/install-parts kube
	KUIK_SCALE_PODS=$(PODS) KUIK_SCALE_IMAGES=$(IMAGES) KUIK_SCALE_QUIET=$(QUIET) cargo test --locked --release -p kuik-bin \
		--all-features --test scale -- --nocapture --ignored

kube-old: ## build Kubernetes 1.20, and run the tests of the webhook, the controllers and the chart with it (a quarter of an hour)
	@tools/install-parts tests chart
	assets=$$(tools/kubernetes-old) && source tools/env && KUBEBUILDER_ASSETS=$$assets cargo test --locked --workspace \
		--all-features --no-fail-fast --test webhook --test 'controller*' --test api_server --test cached_images \
		--test cluster --test leader --test pull_secrets --test chart -- --include-ignored --test-threads=2

e2e-old: ## the same on Kubernetes 1.20, as far as that goes: wherever the cache keeps its content, and whichever way nodes pull (needs Go and root)
	assets=$$(tools/kubernetes-old) && KUBEBUILDER_ASSETS=$$assets tools/e2e matrix:: promise:: expiry:: private:: release:: faults::

model: ## every order in which the parts of a fill can take turns, further than make test looks (minutes)
	KUIK_MODEL_PREEMPTIONS=5 cargo test --locked --release -p kuik-proxy --all-features --test fill_model

stampede: ## 200 clients pull one cold image at the same moment: what upstream sees, and how long it takes
	cargo test --locked --release -p kuik-proxy --all-features --test stampede -- --nocapture

cold-pull: ## a cold pull of 1 GiB through kuik against one from its upstream directly: ratios
	cargo bench --locked -p kuik-benches --bench cold_pull

image: ## the image with all binaries, as an OCI layout in target/image (needs no container engine)
	@tools/image

values: ## write docs/chart-values.md from the comments in the chart's values.yaml
	@tools/chart-values write

bench: ## criterion benches against named peers
	cargo bench --locked -p kuik-benches --bench reference --bench manifest_hit

bench-hits: ## throughput, CPU and latency of what is stored, beside nginx and Docker's registry
	@tools/install-parts bench
	cargo build --locked --release -p kuik-bin --bin kuik-registry
	@benches/hits

bench-webhook: ## load the webhook with 2,000 reviews a second over TLS for a minute: latencies, and CPU per review
	cargo bench --locked -p kuik-benches --bench webhook_load

fuzz: ## fuzz every target for TIME=600 seconds each, or TARGET=name alone
	@tools/install-parts fuzz
	@tools/fuzz $(TIME) $(TARGET)

ci: ## all that CI runs
	@bash .ci/run
