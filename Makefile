# Every target says what it does with `make help`. `make demo` and `make test` set up what they need.

export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
ifeq ($(shell uname -s),Linux)
# The NVML library is there on some machines only: its functions must be bound when they are called.
export CGO_LDFLAGS ?= -Wl,-z,lazy
endif
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
INSTALL = $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends
PROGRAMS := build/distributed-agent build/sandbox build/frps

.DEFAULT_GOAL := help
.PHONY: help setup build demo test check bench fuzz cross clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' Makefile

setup: ## install what demo and tests need from the distribution (Docker, iptables, a C compiler)
	@missing=""; \
	command -v dockerd >/dev/null || [ -x /usr/sbin/dockerd ] || missing="$$missing docker.io"; \
	command -v iptables >/dev/null || [ -x /usr/sbin/iptables ] || missing="$$missing iptables"; \
	command -v gcc >/dev/null && [ -e /usr/include/stdlib.h ] || missing="$$missing gcc libc6-dev"; \
	if [ -n "$$missing" ]; then \
		echo "setup: installing$$missing"; \
		$(SUDO) apt-get -qq -o DPkg::Lock::Timeout=300 update && \
		$(INSTALL) $$missing >/dev/null || exit 1; \
	fi; \
	command -v docker >/dev/null || { echo "setup: installing docker-cli"; $(INSTALL) docker-cli >/dev/null; } # a package of its own since Debian 13

build: $(PROGRAMS) ## build the agent, the sandbox and its relay into build/

build/distributed-agent: FORCE
	@go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./app

build/sandbox: FORCE
	@go build -trimpath -o $@ ./sandbox

build/frps: go.mod
	@go build -trimpath -tags noweb -ldflags '-s -w' -o $@ github.com/fatedier/frp/cmd/frps

FORCE:

demo: setup build ## rent this machine for real, on the embedded sandbox (DEMO_ONCE=1: no questions)
	@echo "demo: renting this machine on a sandbox marketplace: real Docker Engine, real frp relay, nothing leaves loopback"
	@build/sandbox demo --agent build/distributed-agent

test: setup build/frps ## run every test, with the race detector, on a private Docker Engine
	@[ -z "$(SUDO)" ] || sudo -n true 2>/dev/null || { echo "test: the private Docker Engine needs root"; sudo -v; }
	@echo "test: all packages with -race; a private Docker Engine runs in a network namespace of its own"
	@FRPS="$(CURDIR)/build/frps" go test -race -timeout 12m ./...

check: ## format, vet, staticcheck, import rules, and a build for Windows and macOS
	@unformatted=$$(go tool gofumpt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofumpt on:"; echo "$$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	go tool staticcheck ./...
	go test ./core
	$(MAKE) --no-print-directory cross

cross: ## compile the agent for Windows and macOS
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go vet ./core/... ./app/...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build -o build/windows/distributed-agent.exe ./app
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet ./core/... ./app/...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o build/darwin-arm64/distributed-agent ./app
	CGO_ENABLED=0 GOOS=darwin GOARCH=amd64 go build -o build/darwin-amd64/distributed-agent ./app
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -o build/linux-arm64/distributed-agent ./app

bench: setup build ## measure speed and size against their goals
	@go run ./sandbox/bench

fuzz: ## fuzz everything that reads what others wrote, FUZZTIME (30s) a target
	@grep -rlE '^func Fuzz' --include='*_test.go' core | while read -r file; do \
		for target in $$(grep -o '^func Fuzz[A-Za-z]*' "$$file" | cut -c6-); do \
			go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")" </dev/null || exit 1; \
		done; \
	done

clean: ## remove what was built
	rm -rf build
