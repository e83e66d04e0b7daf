# `make help` lists the targets. On a fresh Debian or Ubuntu, as root, `make run` and
# `make test` get whatever they lack, Go included.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO       := scripts/go.sh
VERSION  ?= $(shell git describe --tags --match 'v*' --always --dirty 2>/dev/null || echo devel)
REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
MODULE   := github.com/ebpf-tracer/ebpf-tracer
STAMP    := -X main.version=$(VERSION) -X main.revision=$(REVISION) -X $(MODULE)/sdk/plugin.version=$(VERSION)
# Without gRPC's pages for a browser, which nobody opens, every plugin is half a megabyte smaller.
TAGS     := grpcnotrace
KINDS    := discoverer mesh sampler
CONFIG   ?= config.hcl
FUZZTIME ?= 30s
DURATION ?= 30m

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# The daemon runs no plugin that others could have written, whatever the umask here.
.PHONY: build
build: ## Build bin/ebpf-tracer and bin/plugins, static
	@umask 022; \
	export CGO_ENABLED=0; \
	$(GO) build -trimpath -tags $(TAGS) -ldflags '$(STAMP)' -o bin/ebpf-tracer ./core/cmd/ebpf-tracer; \
	for kind in $(KINDS); do \
		mkdir -p "bin/plugins/$$kind"; \
		$(GO) build -trimpath -tags $(TAGS) -ldflags '$(STAMP)' -o "bin/plugins/$$kind/" "./plugins/$$kind/..."; \
		install -m 0644 plugins/$$kind/*/*.plugin.hcl "bin/plugins/$$kind/"; \
	done; \
	chmod -R go-w bin

.PHONY: run
run: build ## Build everything and run it with config.hcl (CONFIG=FILE for another)
	@exec bin/ebpf-tracer run --config $(CONFIG)

.PHONY: test
test: ## Install what the tests need and run all of them (as root)
	@scripts/test.sh all

.PHONY: test-unit
test-unit: ## Run the tests that need neither root nor anything installed
	@scripts/test.sh unit

.PHONY: race
race: ## Run the unit tests under the race detector (needs gcc)
	@scripts/test.sh race

.PHONY: bench
bench: build ## Measure what tracing costs here (as root; keep the machine quiet; ARGS=...)
	@test/env/install.sh
	@$(GO) run ./test/bench $(ARGS)

.PHONY: bench-sampling
bench-sampling: ## Hold our sampler against those of others, and its targets, over 20 seeds (as root; 6 min)
	@$(GO) test -count=1 -v -timeout 0 -run 'Targets|Bounds|Seeds' ./test/sampling -args -peers -seeds 20 | grep -v '^=== '

.PHONY: runtimes
runtimes: ## Run one suite on every container runtime (as root; 15 min and more)
	@$(GO) test -count=1 -v -timeout 0 ./test/runtimes -args -rows all

.PHONY: soak
soak: ## Trace a machine at full load for DURATION (30m): false kills, ledger, growth (as root)
	@$(GO) test -count=1 -v -timeout 0 ./test/soak -args -duration $(DURATION)

.PHONY: fuzz
fuzz: ## Fuzz every parser of outside bytes, each for FUZZTIME (30s)
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: generate
generate: ## Compile the probes with the pinned clang, regenerate the protobuf code and docs/plugins
	@PATH="$$(dirname "$$($(GO))"):$$PATH" bpf/generate.sh
	@PATH="$$(dirname "$$($(GO))"):$$PATH" scripts/proto.sh
	@$(MAKE) docs

.PHONY: docs
docs: build ## Write docs/plugins from what the plugins say of themselves
	@scripts/docs.sh bin/ebpf-tracer bin/plugins docs/plugins

.PHONY: drift
drift: ## Compile the probes in a copy and compare every byte with what is committed
	@PATH="$$(dirname "$$($(GO))"):$$PATH" scripts/drift.sh

.PHONY: lint
lint: ## Check format, go vet and the import rules
	@scripts/lint.sh

.PHONY: tidy
tidy: ## Tidy go.mod and go.sum of every module, those of the examples included
	@for module in . sdk $$(dirname examples/plugins/*/go.mod); do \
		(cd "$$module" && "$$OLDPWD/$(GO)" mod tidy); \
	done

.PHONY: clean
clean: ## Remove what build made
	@rm -rf bin
