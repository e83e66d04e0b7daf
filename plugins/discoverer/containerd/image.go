package main

import (
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// parseImage splits an image reference as a user writes it; nil: there is none. A reference
// without tag and digest means the tag latest; one that is an image's id has
// no name.
func parseImage(ref string) *protov1.Image {
	if ref = cut(ref, maxName); ref == "" {
		return nil
	}
	if id, ok := imageID(ref); ok {
		return &protov1.Image{Id: id}
	}
	img := &protov1.Image{}
	img.Name, img.Digest, _ = strings.Cut(ref, "@")
	// A colon before the last slash is a registry's port.
	if i := strings.LastIndexByte(img.Name, ':'); i > strings.LastIndexByte(img.Name, '/') {
		img.Name, img.Tag = img.Name[:i], img.Name[i+1:]
	}
	if img.Name != "" && img.Tag == "" && img.Digest == "" {
		img.Tag = "latest"
	}
	return img
}

// imageID tells whether ref is the whole id of an image.
func imageID(ref string) (string, bool) {
	hex, ok := strings.CutPrefix(ref, "sha256:")
	if !ok && len(ref) != 64 || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", false
	}
	return "sha256:" + hex, true
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
