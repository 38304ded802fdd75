module github.com/skep-bpf/skep

go 1.26

require github.com/cilium/ebpf v0.22.0

require golang.org/x/sys v0.43.0

require github.com/google/go-cmp v0.7.0 // indirect
