.PHONY: build test bench microbench fuzz picture generate fmt lint cross

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/ ./cmd/...

test:
	scripts/test

bench:
	CGO_ENABLED=0 go run ./internal/bench -write CONFORMANCE.md

microbench:
	CGO_ENABLED=0 go test -run '^$$' -bench . -benchmem ./...

fuzz:
	scripts/fuzz

picture: build
	scripts/picture

generate:
	go generate ./...

fmt:
	scripts/lint fmt

lint:
	scripts/lint

cross:
	scripts/cross
