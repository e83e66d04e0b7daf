package main

import (
	"strings"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/describe"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// parseImage splits an image reference; nil: there is none.
func parseImage(ref string) *protov1.Image {
	if ref == "" {
		return nil
	}
	return describe.ParseImage(ref)
}

// reference is an image as a user writes it.
func reference(i *protov1.Image) string {
	ref := i.GetName()
	if i.GetTag() != "" {
		ref += ":" + i.GetTag()
	}
	return ref
}

// isDigest tells the names that Kubernetes' images have besides those that users know.
func isDigest(name string) bool { return strings.HasPrefix(name, "sha256:") }
