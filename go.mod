module github.com/skep-bpf/skep

go 1.26
