# Every target says what it does with `make help`. `make demo` and `make test` set up what they need.

export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
ifeq ($(shell uname -s),Linux)
# The NVML library is there on some machines only: its functions must be bound when they are called.
export CGO_LDFLAGS ?= -Wl,-z,lazy
endif
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS = -s -w -X main.version=$(VERSION)
FUZZTIME ?= 30s
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
INSTALL = $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends
PROGRAMS := build/distributed-agent build/distributed-agent-shield build/sandbox build/frps
# What tests need beside the programs of setup, as program:package.
TEST_TOOLS := nft:nftables ip:iproute2 mkfs.btrfs:btrfs-progs mkfs.ext4:e2fsprogs dbus-daemon:dbus dbus-launch:dbus-x11 gnome-keyring-daemon:gnome-keyring secret-tool:libsecret-tools \
	desktop-file-validate:desktop-file-utils gio:libglib2.0-bin systemd-analyze:systemd Xvfb:xvfb xclip:xclip node:nodejs npm:npm
SCREENSHOT_TOOLS := Xvfb:xvfb dbus-daemon:dbus xfwm4:xfwm4 xfce4-panel:xfce4-panel xdotool:xdotool import:imagemagick xsetroot:x11-xserver-utils
ISOLATION_TOOLS := nft:nftables ip:iproute2 mkfs.btrfs:btrfs-progs mkfs.ext4:e2fsprogs
WINE_TOOLS := Xvfb:xvfb xdotool:xdotool import:imagemagick wine:wine
export OIDC_PROVIDER_DIR ?= $(CURDIR)/build/npm/oidc-provider

# install is $(call install,target,program:package…): it installs the packages whose programs are missing.
define install
@PATH="$$PATH:/usr/sbin:/sbin"; missing=""; for tool in $(2); do command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
if [ -n "$$missing" ]; then \
	echo "$(1): installing$$missing"; \
	$(SUDO) apt-get -qq -o DPkg::Lock::Timeout=300 update && $(INSTALL) $$missing >/dev/null; \
fi
endef

.DEFAULT_GOAL := help
.PHONY: help setup setup-test build demo test test-engine isolation test-wine check bench fuzz cross screenshots icons clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

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

setup-test: setup ## install what tests need more (D-Bus, a keyring, a screen, Chromium, node and npm)
	$(call install,setup,$(TEST_TOOLS))
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
		{ echo "setup: installing chromium"; $(INSTALL) chromium >/dev/null; }

build/npm/oidc-provider/.installed: core/signin/testdata/oidc-provider/package.json core/signin/testdata/oidc-provider/package-lock.json
	@mkdir -p $(@D) && cp $^ $(@D)/ && npm ci --prefix $(@D) --ignore-scripts --silent && touch $@

build: $(PROGRAMS) ## build the agent, the sandbox and its relay into build/

build/distributed-agent: FORCE
	@go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./app

build/distributed-agent-shield: FORCE
	@CGO_ENABLED=0 GOOS=linux go build -trimpath -ldflags '-s -w' -o $@ ./app/shield

build/sandbox: FORCE
	@go build -trimpath -o $@ ./sandbox

build/frps: go.mod
	@go build -trimpath -tags noweb -ldflags '-s -w' -o $@ github.com/fatedier/frp/cmd/frps

FORCE:

demo: setup build ## rent this machine for real, on the embedded sandbox (DEMO_ONCE=1: no questions)
	@echo "demo: renting this machine on a sandbox marketplace: real Docker Engine, real frp relay, nothing leaves loopback"
	@build/sandbox demo --agent build/distributed-agent

test: setup-test build/frps build/npm/oidc-provider/.installed ## run every test, with the race detector, on a private Docker Engine
	@[ -z "$(SUDO)" ] || sudo -n true 2>/dev/null || { echo "test: the private Docker Engine needs root"; sudo -v; }
	@echo "test: all packages with -race; a private Docker Engine runs in a network namespace of its own"
	@FRPS="$(CURDIR)/build/frps" go test -race -p 3 -timeout 14m ./sandbox/e2e ./core/docker ./... # the longest first

# Debian 13's engine runs on Debian 12 too, where its package is unpacked beside the installed one; runc is the machine's.
# The lists and the downloaded packages stay in build/: what apt knows on this machine is not changed.
ENGINE_SUITE = trixie
ENGINE_DIR = $(CURDIR)/build/engine-26.1
DEBIAN_MIRROR ?= $(or $(shell grep -rhoE 'https?://[^ ]+/debian/?( |$$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | grep -v '/snapshot\.' | head -n 1),http://deb.debian.org/debian)
ENGINE_APT = apt-get -qq -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dir::Etc::sourcelist=$(ENGINE_DIR)/apt/sources.list \
	-o Dir::Etc::sourceparts=- -o Dir::State::lists=$(ENGINE_DIR)/apt/lists -o Dir::Cache=$(ENGINE_DIR)/apt

build/engine-26.1/.unpacked:
	@echo "test-engine: downloading the Docker Engine of Debian $(ENGINE_SUITE)"
	@rm -rf $(@D) && mkdir -p $(@D)/apt/lists/partial $(@D)/apt/archives/partial
	@echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(strip $(DEBIAN_MIRROR)) $(ENGINE_SUITE) main" >$(@D)/apt/sources.list
	@cd $(@D)/apt && $(ENGINE_APT) update && $(ENGINE_APT) download docker.io containerd
	@for deb in $(@D)/apt/*.deb; do dpkg -x $$deb $(@D) || exit 1; done
	@rm -rf $(@D)/apt && touch $@

test-engine: setup-test build/engine-26.1/.unpacked ## run the tests of everything that speaks to Docker on Docker Engine 26.1 of Debian 13
	@ENGINE_DIR="$(ENGINE_DIR)" go test -count=1 -timeout 20m ./sandbox/engine ./core/docker

isolation: setup build/frps ## prove that rentals are kept from this machine, its network and each other
	$(call install,isolation,$(ISOLATION_TOOLS))
	@echo "isolation: hostile orders, a network to reach, bombs and forbidden calls, on a private Docker Engine"
	@FRPS="$(CURDIR)/build/frps" go run ./sandbox/isolation

test-wine: ## start the Windows programs under Wine: icon, status, start at login
	$(call install,test-wine,$(WINE_TOOLS))
	@echo "test-wine: the Windows programs in a Wine of their own, on a screen of their own"
	go test -tags wine -count=1 -timeout 15m ./sandbox/wine

screenshots: VERSION = 1.0.0
screenshots: setup build ## take docs/screenshots anew, of the real program in a real panel
	$(call install,screenshots,$(SCREENSHOT_TOOLS))
	@[ -e /usr/share/fonts/opentype/cantarell ] || $(INSTALL) fonts-cantarell >/dev/null
	@go run ./sandbox/screenshots -out docs/screenshots

icons: ## draw the pictures of assets/svg again
	@go generate ./assets

check: ## format, vet, staticcheck, import rules, and a build for Windows and macOS
	@unformatted=$$(go tool gofumpt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "run gofumpt on:"; echo "$$unformatted"; exit 1; }
	go mod tidy -diff
	go vet ./...
	go tool staticcheck ./...
	go test ./core
	$(MAKE) --no-print-directory cross

cross: ## compile the agent for Windows and macOS
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go vet ./core/... ./app/... ./tray/... ./assets/...
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build -o build/windows/distributed-agent.exe ./app
	CGO_ENABLED=0 GOOS=windows GOARCH=amd64 go build -ldflags -H=windowsgui -o build/windows/distributed-agentw.exe ./app
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go vet ./core/... ./app/... ./tray/... ./assets/...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 go build -o build/darwin-arm64/distributed-agent ./app
	CGO_ENABLED=0 GOOS=darwin GOARCH=amd64 go build -o build/darwin-amd64/distributed-agent ./app
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -o build/linux-arm64/distributed-agent ./app
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 go build -o build/linux-arm64/distributed-agent-shield ./app/shield

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
