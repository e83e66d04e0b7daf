module github.com/ebpf-tracer/ebpf-tracer

go 1.26.0

require github.com/ebpf-tracer/ebpf-tracer/sdk v0.0.0

replace github.com/ebpf-tracer/ebpf-tracer/sdk => ./sdk
