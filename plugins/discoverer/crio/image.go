package main

import (
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// parseImage splits an image reference as a user writes it. A reference
// without tag and digest means the tag latest; one that is an image's id has
// no name.
func parseImage(ref string) *protov1.Image {
	ref = cut(ref, maxName)
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

// withID completes an image with the id of its config. A name that is but the
// beginning of the id is no name.
func withID(img *protov1.Image, id string) *protov1.Image {
	if id == "" {
		return img
	}
	img.Id = cut(id, maxName)
	hex := strings.TrimPrefix(id, "sha256:")
	if img.Name != "" && len(img.Name) >= 4 && img.Digest == "" && img.Tag == "latest" && strings.HasPrefix(hex, img.Name) {
		img.Name, img.Tag = "", ""
	}
	return img
}

// repoNames are what an image is called in its store.
type repoNames struct {
	tags    []string // name:tag
	digests []string // name@sha256:...
}

// complete adds what the store knows: the digest of the name that the user
// wrote, and a name where the user wrote an id.
func (n repoNames) complete(img *protov1.Image) {
	if img.GetName() == "" && len(n.tags) > 0 {
		t := parseImage(n.tags[0])
		img.Name, img.Tag = t.Name, t.Tag
	}
	if img.GetDigest() != "" || img.GetName() == "" {
		return
	}
	for _, d := range n.digests {
		name, digest, ok := strings.Cut(d, "@")
		if ok && (name == img.Name || strings.HasSuffix(name, "/"+img.Name) || strings.HasSuffix(img.Name, "/"+name)) {
			img.Digest = cut(digest, maxName)
			return
		}
	}
}
