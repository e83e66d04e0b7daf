package runtimes

import (
	"context"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

func rows() []row {
	return []row{
		{name: "docker", start: env.NewDockerRow, runtime: "docker", image: true},
		{name: "podman", start: env.NewPodmanRow, runtime: "podman", image: true},
		{name: "containerd 1", runtime: "containerd", image: true,
			start: func(ctx context.Context) (env.Runtime, error) { return env.NewContainerdRow(ctx) }},
		{name: "containerd 2", runtime: "containerd", image: true,
			start: func(ctx context.Context) (env.Runtime, error) {
				return env.NewContainerdRow(ctx, env.WithContainerd2())
			}},
		{name: "containerd 1 by its CRI", runtime: "containerd", image: true,
			start: func(ctx context.Context) (env.Runtime, error) { return env.NewContainerdCRIRow(ctx) }},
		{name: "containerd 2 by its CRI", runtime: "containerd", image: true,
			start: func(ctx context.Context) (env.Runtime, error) {
				return env.NewContainerdCRIRow(ctx, env.WithContainerd2())
			}},
		{name: "CRI-O", start: env.NewCRIORow, runtime: "cri-o", image: true},
	}
}
