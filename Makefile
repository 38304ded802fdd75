.PHONY: build test bench generate fmt lint cross

build:
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/ ./cmd/...

test:
	scripts/test

bench:
	CGO_ENABLED=0 go test -run '^$$' -bench . -benchmem ./...

generate:
	go generate ./...

fmt:
	scripts/lint fmt

lint:
	scripts/lint

cross:
	scripts/cross
