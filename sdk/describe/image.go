package describe

import (
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// ParseImage splits an image reference as a user writes it, cut to MaxName. A
// reference without tag and digest means the tag latest; one that is an image's whole
// id has no name.
func ParseImage(ref string) *protov1.Image {
	ref = Cut(ref, MaxName)
	if id, ok := ImageID(ref); ok {
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

// ImageID gives the id, with its sha256:, when ref is the whole id of an image and no
// name: 64 hex digits, with or without sha256: before them.
func ImageID(ref string) (string, bool) {
	hex := strings.TrimPrefix(ref, "sha256:")
	if !IsHex64(hex) {
		return "", false
	}
	return "sha256:" + hex, true
}

// IsHex64 tells whether s is 64 lower case hex digits: an id that is unique by itself,
// so that the scope of its container is empty.
func IsHex64(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// WithID completes an image, in place, with the id of its config. A name that is but
// the beginning of the id is no name. It returns img.
func WithID(img *protov1.Image, id string) *protov1.Image {
	if id == "" {
		return img
	}
	img.Id = Cut(id, MaxName)
	hex := strings.TrimPrefix(id, "sha256:")
	if img.Name != "" && len(img.Name) >= 4 && img.Digest == "" && img.Tag == "latest" && strings.HasPrefix(hex, img.Name) {
		img.Name, img.Tag = "", ""
	}
	return img
}

// RepoNames are what an image is called in its store.
type RepoNames struct {
	Tags    []string // name:tag
	Digests []string // name@sha256:...
}

// Complete adds what the store knows to an image, in place: the digest of the name
// that the user wrote, and a name where the user wrote an id.
func (n RepoNames) Complete(img *protov1.Image) {
	if img.GetName() == "" && len(n.Tags) > 0 {
		t := ParseImage(n.Tags[0])
		img.Name, img.Tag = t.Name, t.Tag
	}
	if img.GetDigest() != "" || img.GetName() == "" {
		return
	}
	for _, d := range n.Digests {
		name, digest, ok := strings.Cut(d, "@")
		if ok && (name == img.Name || strings.HasSuffix(name, "/"+img.Name) || strings.HasSuffix(img.Name, "/"+name)) {
			img.Digest = Cut(digest, MaxName)
			return
		}
	}
}
