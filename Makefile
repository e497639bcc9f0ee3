# Every developer command. `make help` lists them; .ci/run runs those that guard the main branch, .ci/nightly all others.

SHELL := /bin/bash
TIME ?= 600
TARGET ?=
CRATE ?=
SCENARIO ?=
STORAGE ?=
PODS ?= 5000
IMAGES ?= 500
QUIET ?= 300
STEPS ?= 2000
SEED ?=
KUIK_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kuik
export PATH := $(KUIK_CACHE)/tools/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help setup demo serve crds values flags image quick test built unit fmt fmt-check lint doc lean deny prose api package msrv conformance e2e stress soak storm stampede cold-pull model bench bench-hits bench-webhook scale system-model kube-old e2e-old fuzz ci nightly

help: ## list these commands
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-14s %s\n' "$$name" "$$text"; done

setup: ## install what tests, fuzzing and license checks need besides Rust
	@tools/install-parts all

demo: ## pull an image through the proxy, stop its upstream, pull it again (needs nothing but Rust)
	cargo run --locked --release --bin kuik -- demo

serve: ## run the pull-through cache on localhost:7439, with its data in ./data
	cargo run --locked --release --bin kuik -- serve --data-dir data

crds: ## write the definitions of the custom resources into the chart
	cargo run --locked --quiet -p kuik-bin --all-features --bin kuik -- crds > kuik-bin/chart/kube-image-keeper/files/crds.yaml

quick: ## format check, clippy and hermetic tests of one crate: CRATE=kuik-proxy (needs nothing but Rust)
	@tools/quick $(CRATE)

test: ## install missing parts, then all tests: unit, property, doc, and with real registries and clients
	@tools/test

built: ## the tests that make test skips: with crane, Docker's registry 3, MinIO, Helm and a Kubernetes API server, built from Go
	@tools/test built

unit: ## the tests of all crates that need nothing but Rust: unit, property and doc tests
	@tools/install-parts nextest
	cargo nextest run --locked --workspace --all-features -E 'kind(lib) or kind(bin) or binary(=it)'
	cargo test --quiet --locked --workspace --all-features --no-fail-fast --doc

fmt: ## format all code
	cargo fmt --all

fmt-check: ## fail if code is not formatted
	cargo fmt --all --check

lint: ## clippy with all features, and the compiler with each feature alone; warnings are errors
	@tools/lint

doc: ## build the documentation, warnings as errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --all-features --no-deps

lean: ## check that kuik-core without features has no runtime, TLS or Kubernetes
	@tools/core-is-lean

deny: ## check licenses, banned crates and sources (not advisories: see deny.toml)
	@tools/install-parts deny
	@source tools/env && cargo deny --locked --log-level warn check licenses bans sources

prose: ## check comments, messages and documents for house phrases and American spelling
	@tools/install-parts prose
	@tools/prose --self-test
	@tools/prose

api: ## compare the public API with its record in docs/api (needs a nightly toolchain); tools/public-api write records it
	@tools/install-parts api
	@tools/public-api

package: ## build each crate from the package that would be published, in the order of their dependencies
	cargo package --locked --allow-dirty --workspace --exclude kuik-benches

msrv: ## check with the oldest Rust that Cargo.toml promises
	@tools/msrv

conformance: ## the OCI distribution conformance suite against kuik-registry, on a directory or with STORAGE=s3 in a bucket, all tests enabled (needs Go)
	@tools/install-parts conformance $(if $(filter s3,$(STORAGE)),go)
	@tools/conformance $(STORAGE)

e2e: ## end-to-end tests on a real cluster with one node, which this starts and stops (needs Go and root); SCENARIO=matrix:: for some of them
	@tools/e2e $(SCENARIO)

stress: ## the load tests: kill loops, garbage collection under load, large stores, replicas, upstream faults (needs Go)
	@tools/install-parts nextest go
	KUIK_CRASH_ROUNDS=20 cargo nextest run --profile long --locked --workspace --all-features --run-ignored all \
		-E 'test(crash::) or binary(=storm) or (binary(=stress) - test(scale::))'

soak: ## collect garbage under pushes, pulls and deletes for TIME=600 seconds, in a directory or with STORAGE=s3 in a bucket
	@tools/install-parts nextest $(if $(filter s3,$(STORAGE)),go)
	KUIK_SOAK_SECONDS=$(TIME) cargo nextest run --profile long --locked --release -p kuik-bin --all-features --test stress \
		--no-capture --run-ignored $(if $(filter s3,$(STORAGE)),only,default) soak::

storm: ## 200 clients pull through an upstream that fails at random for TIME=600 seconds, from a seed that is printed
	@tools/install-parts nextest
	KUIK_STORM_SECONDS=$(TIME) cargo nextest run --profile long --locked -p kuik-proxy --all-features --test storm --no-capture

scale: ## the controllers with PODS=5000 pods over IMAGES=500 images, then QUIET=300 seconds without changes: time, writes, memory, CPU
	@tools/install-parts nextest kube
	KUIK_SCALE_PODS=$(PODS) KUIK_SCALE_IMAGES=$(IMAGES) KUIK_SCALE_QUIET=$(QUIET) cargo nextest run --profile long --locked \
		--release -p kuik-bin --all-features --test stress --no-capture --run-ignored only scale::

system-model: ## STEPS=2000 random steps (SEED=number repeats a run) over controllers, cache, upstream and two clusters, with their invariants checked
	@tools/install-parts nextest kube
	KUIK_MODEL_STEPS=$(STEPS) $(if $(SEED),KUIK_MODEL_SEED=$(SEED)) cargo nextest run --profile long --locked -p kuik-bin \
		--all-features --test cluster --no-capture --run-ignored only model::

kube-old: ## build Kubernetes 1.20, and run the tests of the webhook, the controllers and the chart with it (a quarter of an hour)
	@tools/install-parts tests chart
	assets=$$(tools/kubernetes-old) && source tools/env && KUBEBUILDER_ASSETS=$$assets cargo nextest run --locked --workspace \
		--all-features --run-ignored all -E 'binary(=cluster) - test(documentation::)'

e2e-old: ## the end-to-end tests that Kubernetes 1.20 supports: every storage of the cache, every way in which nodes pull (needs Go and root)
	assets=$$(tools/kubernetes-old) && KUBEBUILDER_ASSETS=$$assets tools/e2e matrix:: promise:: expiry:: private:: release:: faults::

model: ## explore more interleavings of a fill than make test (minutes)
	@tools/install-parts nextest
	KUIK_MODEL_PREEMPTIONS=5 cargo nextest run --profile long --locked --release -p kuik-proxy --all-features --test it fill_model::

stampede: ## 200 clients pull one cold image at once: upstream requests and time
	@tools/install-parts nextest
	cargo nextest run --profile long --locked --release -p kuik-proxy --all-features --test it --no-capture stampede::

cold-pull: ## a cold pull of 1 GiB through kuik, compared with a direct pull from upstream
	cargo bench --locked -p kuik-benches --bench cold_pull

image: ## build the image with all binaries, as an OCI layout in target/image (needs no container engine)
	@tools/image

flags: ## write docs/flags.md from the command line definitions
	cargo run --locked --quiet -p kuik-bin --all-features --bin kuik -- flags > docs/flags.md

values: ## write docs/chart-values.md, docs/values-1.14.md and the table of other defaults in docs/migration.md
	@tools/chart-values write
	KUIK_WRITE_PAGES=1 cargo test --locked --quiet -p kuik-bin --all-features --test cluster -- --exact \
		chart::values_1_14::pages_say_what_becomes_of_each_value

bench: ## criterion benches against named peers
	cargo bench --locked -p kuik-benches --bench reference --bench manifest_hit

bench-hits: ## throughput, CPU and latency of cache hits, compared with nginx and Docker's registry
	@tools/install-parts bench
	@benches/hits

bench-webhook: ## load the webhook with 2,000 reviews a second over TLS for a minute: latencies, and CPU per review
	cargo bench --locked -p kuik-benches --bench webhook_load

fuzz: ## fuzz every target for TIME=600 seconds each, or TARGET=name alone
	@tools/install-parts fuzz
	@tools/fuzz $(TIME) $(TARGET)

ci: ## everything that CI runs on every push (needs root and Go)
	@bash .ci/run

nightly: ## the tests that take too long for every push, and every other command here once: at most 90 minutes (needs root and Go)
	@bash .ci/nightly
