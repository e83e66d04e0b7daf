package runtimes

import (
	"context"
	"maps"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

// reasons puts tables of fields and reasons together.
func reasons(tables ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, t := range tables {
		maps.Copy(all, t)
	}
	return all
}

// noPods are the fields of a runtime that knows nothing of pods.
func noPods() map[string]string {
	const reason = "it has no pods, and no orchestrator has labelled the container"
	return map[string]string{
		"pod_uid": reason, "sandbox_id": reason, "type": reason, "kubernetes_name": reason,
	}
}

// docker is what is not told of Docker's containers.
func docker() map[string]string {
	return reasons(dockerLike(), map[string]string{
		"image.digest": "an image that was not pulled has no digest in Docker's store",
	})
}

// podman is what is not told, or told otherwise, of Podman's.
func podman() map[string]string {
	return reasons(dockerLike(), map[string]string{
		"mounts": "its service tells of what Podman mounts in memory where the root is read-only, podman inspect does not",
	})
}

func dockerLike() map[string]string {
	return reasons(noPods(), map[string]string{
		"annotations": "this Docker has none, and Podman's service tells none",
		"scope":       "ids of 64 hex digits are unique by themselves",
		"cgroup_path": "Docker does not tell it, and the discoverer can't see from its sandbox whether it is where it should be",
		"cgroup_id":   "Docker does not tell it, and the discoverer sees no cgroups from its sandbox",
	})
}

// ctr is what is not told of containers that were made by ctr.
func ctr() map[string]string {
	return reasons(noPods(), map[string]string{
		"image.id":          "a container names its image, whose manifest and config are in the content store, which is not read",
		"started_unix_nano": "containerd does not keep it; the discoverer's is that of the event, or of the first process",
		"oom_killed":        "containerd tells of it when it happens, and keeps it nowhere",
		"entrypoint":        "the specification has one command line",
		"ports":             "containerd publishes none",
		"networks":          "ctr gives none",
		"network_mode":      "a specification only tells that there is a network namespace, not whose",
		"restart_count":     "containerd restarts nothing",
	})
}

// cri is what is not told, or told otherwise, of containers of any CRI.
func cri() map[string]string {
	return map[string]string{
		"entrypoint":     "the CRI puts command and arguments into one command line",
		"limits.ulimits": "the CRI has no option for them",
		"scope":          "ids of 64 hex digits are unique by themselves",
		"type":           "the CRI does not tell what kind of container of its pod it is",
	}
}

// containerdCRI is what is not told, or told otherwise, of those of containerd's CRI, of
// which the discoverer hears from containerd itself.
func containerdCRI() map[string]string {
	return reasons(cri(), map[string]string{
		"annotations":       "those of the specification are told too, not only those of the CRI's configuration",
		"labels":            "containerd's store has more than its CRI tells: the CRI's own kind and those of the image",
		"mounts":            "the specification has those that the CRI adds: hostname, hosts, resolv.conf, shm",
		"created_unix_nano": "the CRI notes its own time, some milliseconds later",
		"started_unix_nano": "the CRI notes its own time, some milliseconds later",
		"image.digest":      "the CRI tells none of an image that was not pulled; containerd's store has it",
		"networks":          "they are the sandbox's, and told of its container",
		"hostname":          "it is the sandbox's, and told of its container",
		"oom_killed":        "containerd tells of it when it happens, and keeps it nowhere",
	})
}

// crio is what is not told, or told otherwise, of CRI-O's.
func crio() map[string]string {
	return reasons(cri(), map[string]string{
		"networks":                      "the CRI tells the address alone; the discoverer adds what CRI-O notes of the interface",
		"security.capabilities_dropped": "the CRI tells the whole set, not what was asked for",
		"cgroup_path":                   "the discoverer can't see from its sandbox whether it is where the specification says",
		"cgroup_id":                     "the discoverer sees no cgroups from its sandbox",
	})
}

// noPause are the words of a container's life that no CRI can tell.
func noPause() map[string]string {
	const reason = "the CRI has no pause"
	return map[string]string{"paused": reason, "unpaused": reason}
}

// bare is what is not told of containers that runc runs by itself.
func bare() map[string]string {
	const noImage = "a bundle has a root directory, not an image"
	return reasons(noPods(), map[string]string{
		"image.name": noImage, "image.tag": noImage, "image.digest": noImage, "image.id": noImage,
		"started_unix_nano":             "runc does not keep it; the discoverer's is when it saw it",
		"finished_unix_nano":            "runc does not keep it; the discoverer's is when it saw it",
		"exit_code":                     "only who ran runc knows it",
		"oom_killed":                    "runc does not keep it",
		"labels":                        "a specification has annotations only",
		"entrypoint":                    "the specification has one command line",
		"ports":                         "runc publishes none",
		"networks":                      "runc gives none",
		"network_mode":                  "a specification only tells that there is a network namespace, not whose",
		"restart_count":                 "runc restarts nothing",
		"security.capabilities_dropped": "what is dropped here is not among the few that runc spec gives",
	})
}

func rows() []row {
	return []row{
		{name: "docker", start: env.NewDockerRow, runtime: "docker", image: true, differs: docker()},
		{name: "podman", start: env.NewPodmanRow, runtime: "podman", image: true, differs: podman()},
		{name: "containerd 1", runtime: "containerd", image: true, differs: reasons(ctr(), map[string]string{
			"hostname": "this ctr has no option for it",
		}), start: func(ctx context.Context) (env.Runtime, error) { return env.NewContainerdRow(ctx) }},
		{name: "containerd 2", runtime: "containerd", image: true, differs: ctr(),
			start: func(ctx context.Context) (env.Runtime, error) {
				return env.NewContainerdRow(ctx, env.WithContainerd2())
			}},
		{name: "containerd 1 by its CRI", runtime: "containerd", image: true, namespace: "default", differs: containerdCRI(), silent: noPause(),
			start: func(ctx context.Context) (env.Runtime, error) { return env.NewContainerdCRIRow(ctx) }},
		{name: "containerd 2 by its CRI", runtime: "containerd", image: true, namespace: "default", differs: containerdCRI(), silent: noPause(),
			start: func(ctx context.Context) (env.Runtime, error) {
				return env.NewContainerdCRIRow(ctx, env.WithContainerd2())
			}},
		{name: "runc", runtime: "oci", differs: bare(), start: func(ctx context.Context) (env.Runtime, error) { return env.NewRuncRow(ctx) }},
		{name: "CRI-O", start: env.NewCRIORow, runtime: "cri-o", image: true, namespace: "default", differs: crio(), silent: noPause()},
	}
}
