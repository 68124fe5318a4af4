# Everything that is done to this repository, by name. Only Go is needed for
# `make test` and `make build`; the other targets say what else they need.

GO      ?= go
# The tools are Go modules of their own, pinned by checksum, so that their
# dependencies are not ours. Go builds them once and keeps them in its cache.
BUF     := $(GO) tool -modfile=tools/proto/go.mod buf
LINT    := $(GO) tool -modfile=tools/lint/go.mod golangci-lint

OUT     := .build
# How long each fuzz target runs; with FUZZTOTAL (seconds) all of them together.
FUZZTIME ?= 60s
FUZZTOTAL ?=
# More flags for `go test`, such as -v.
TESTFLAGS ?=
# The commit that `make breaking` compares with; found by itself when empty.
AGAINST ?=

export GOTOOLCHAIN ?= local

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# grpcnotrace leaves out golang.org/x/net/trace, which nobody here serves, and
# with it 3 MB of each binary.
.PHONY: build
build: ## Build both programs, statically linked, into .build
	CGO_ENABLED=0 $(GO) build -trimpath -tags grpcnotrace -ldflags '-s -w' -o $(OUT)/ ./services/credstore ./services/injector

.PHONY: test
test: ## Run the tests; needs only Go
	CGO_ENABLED=0 $(GO) test $(TESTFLAGS) -timeout 6m ./...

.PHONY: race
race: ## Run the tests under the race detector; needs a C compiler
	CGO_ENABLED=1 $(GO) test $(TESTFLAGS) -race -short -timeout 10m ./...

.PHONY: faults
faults: ## Run the crash, canary and bit-level checks at full length; needs strace
	@command -v strace >/dev/null || { echo 'make faults needs strace: apt-get install strace' >&2; exit 1; }
	CREDSTORE_FAULTS=full CGO_ENABLED=0 $(GO) test $(TESTFLAGS) -count=1 -timeout 20m -run 'Crash|Canary|Bit|Traced|Fault' ./...

# The counterparts are made once, into folders that git ignores, and found by
# these variables.
.PHONY: conformance
conformance: export CREDSTORE_VAULT_SERVER := $(abspath $(OUT)/vaultserver)
conformance: export CREDSTORE_KUBE_APISERVER := $(abspath $(OUT)/kubeapiserver)
conformance: export CREDSTORE_MOTO := $(abspath $(OUT)/moto/bin/moto_server)
conformance: export CREDSTORE_DOCKER_REGISTRY := $(abspath $(OUT)/counterparts/usr/bin/docker-registry)
conformance: export CREDSTORE_SMTP_SERVER := $(abspath $(OUT)/counterparts/usr/bin/chasquid)
conformance: export CREDSTORE_CRANE := $(abspath $(OUT)/crane)
conformance: vaultserver kubeapiserver moto counterparts ## Run the tests against real counterparts; their first build takes minutes
	GO='$(GO)' bash tools/conformance.sh $(TESTFLAGS)

.PHONY: vaultserver
vaultserver: ## Build the real Vault of the conformance tests
	cd test/vaultserver && CGO_ENABLED=0 $(GO) build -o $(abspath $(OUT)/vaultserver) .

.PHONY: kubeapiserver
kubeapiserver: ## Build their real Kubernetes API server
	cd test/kubeapiserver && CGO_ENABLED=0 $(GO) build -o $(abspath $(OUT)/kubeapiserver) .

.PHONY: moto
moto: ## Install moto, their stand-in for AWS; needs python3-venv
	OUT='$(OUT)' bash tools/moto.sh

.PHONY: counterparts
counterparts: ## Unpack their Debian programs, and build a client of registries
	OUT='$(OUT)' bash tools/counterparts.sh
	cd tools/crane && CGO_ENABLED=0 $(GO) build -o $(abspath $(OUT)/crane) github.com/google/go-containerregistry/cmd/crane

.PHONY: bench
bench: ## Measure the product beside its physical limits
	CGO_ENABLED=0 $(GO) run ./services/credstore/internal/bench

.PHONY: fuzz
fuzz: ## Run each fuzz target for FUZZTIME (60s)
	GO='$(GO)' bash tools/fuzz.sh '$(FUZZTIME)' '$(FUZZTOTAL)'

.PHONY: generate
generate: third-party ## Generate gen/ from proto/; needs npm for the imported contracts
	$(BUF) lint
	find gen -type f \( -name '*.pb.go' -o -name '*.pb.gw.go' -o -name '*.swagger.json' \) -delete 2>/dev/null || true
	$(BUF) generate

.PHONY: check-generated
check-generated: generate ## Fail when gen/ is not what proto/ generates
	@changes=$$(git status --porcelain --untracked-files=all -- gen) && \
	if [ -n "$$changes" ]; then \
		echo 'gen/ is not what proto/ generates; run make generate and commit the result:' >&2; \
		echo "$$changes" >&2; git --no-pager diff -- gen | head -n 100 >&2; exit 1; \
	fi

.PHONY: breaking
breaking: third-party ## Fail when proto/ breaks clients of the previous commit or release
	BUF='$(BUF)' OUT='$(OUT)' AGAINST='$(AGAINST)' bash tools/breaking.sh

.PHONY: lint
lint: third-party ## Check style, arrows, contracts, modules and scripts; needs npm
	$(BUF) lint
	$(BUF) format --diff --exit-code proto
	$(GO) vet -tags conformance ./...
	$(LINT) config verify
	$(LINT) run
	GO='$(GO)' bash tools/check-modules.sh
	bash tools/check-scripts.sh

.PHONY: format
format: ## Rewrite Go and proto files in the house style
	$(LINT) fmt
	$(BUF) format --write proto

.PHONY: third-party
third-party:
	@bash tools/proto/third-party.sh
