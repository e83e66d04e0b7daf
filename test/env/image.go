package env

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Image describes a container image of one layer.
type Image struct {
	Ref        string // repository:tag
	Entrypoint []string
	Cmd        []string
	Env        []string // NAME=value
	Labels     map[string]string
	Files      []File
}

// File is a file in an image; its directories are made.
type File struct {
	Path   string // absolute
	Data   []byte
	Target string // of a symbolic link, where it is not empty
}

// BusyboxImage is the name of the image that every environment has: a static busybox
// with all its applets, /bin/noop if a no-op program was given, environment and labels.
const BusyboxImage = "localhost/ebpf-tracer/busybox:test"

// NoopImage is the name of the image that holds /noop, its entrypoint, and nothing else.
const NoopImage = "localhost/ebpf-tracer/noop:test"

// PauseImage is the name of the image of which the sandboxes of pods are made.
const PauseImage = "localhost/ebpf-tracer/pause:test"

// Busybox describes [BusyboxImage]. noop is put at /bin/noop.
func Busybox(noop []byte) (Image, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return Image{}, fmt.Errorf("read busybox (test/env/install.sh installs it): %w", err)
	}
	applets, err := exec.Command("/bin/busybox", "--list").Output()
	if err != nil {
		return Image{}, fmt.Errorf("ask busybox for its applets: %w", err)
	}
	files := []File{
		{Path: "/bin/busybox", Data: busybox},
		{Path: "/bin/noop", Data: noop},
		{Path: "/etc/passwd", Data: []byte("root:x:0:0:root:/root:/bin/sh\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\n")},
	}
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			files = append(files, File{Path: "/bin/" + applet, Target: "busybox"})
		}
	}
	return Image{
		Ref:    BusyboxImage,
		Cmd:    []string{"/bin/sh"},
		Env:    []string{"PATH=/bin", "IMAGE_ENV=from-image"},
		Labels: map[string]string{"org.example.image": "busybox"},
		Files:  files,
	}, nil
}

// Noop describes [NoopImage].
func Noop(noop []byte) Image {
	return Image{
		Ref:        NoopImage,
		Entrypoint: []string{"/noop"},
		Env:        []string{"IMAGE_ENV=from-image"},
		Labels:     map[string]string{"org.example.image": "noop"},
		Files:      []File{{Path: "/noop", Data: noop}},
	}
}

// Pause describes [PauseImage]. pause sleeps until it is told to end.
func Pause(pause []byte) Image {
	return Image{
		Ref:        PauseImage,
		Entrypoint: []string{"/pause"},
		Files:      []File{{Path: "/pause", Data: pause}},
	}
}

// WriteArchive writes the image in the form that docker load and ctr image import
// take. The same image gives the same bytes, so that its id is the same everywhere.
func (i Image) WriteArchive(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"created":      "1970-01-01T00:00:00Z",
		"config": map[string]any{
			"Entrypoint": i.Entrypoint, "Cmd": i.Cmd, "Env": i.Env, "Labels": i.Labels, "WorkingDir": "/",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hexSum(layer)}},
		"history": []any{map[string]any{"created": "1970-01-01T00:00:00Z", "created_by": "test/env"}},
	})
	if err != nil {
		return fmt.Errorf("encode the image's config: %w", err)
	}
	configName, layerName := hexSum(config)+".json", hexSum(layer)+"/layer.tar"
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": configName, "RepoTags": []string{i.Ref}, "Layers": []string{layerName},
	}})
	if err != nil {
		return fmt.Errorf("encode the image's manifest: %w", err)
	}
	out := tar.NewWriter(w)
	for _, f := range []File{
		{Path: "manifest.json", Data: manifest},
		{Path: configName, Data: config},
		{Path: layerName, Data: layer},
	} {
		if err := addFile(out, f); err != nil {
			return err
		}
	}
	return out.Close()
}

// layer is the image's root as a tar, with the directories that a container's mounts
// need.
func (i Image) layer() ([]byte, error) {
	dirs := []string{"dev/", "etc/", "proc/", "sys/", "tmp/"}
	for _, f := range i.Files {
		parts := strings.Split(strings.Trim(f.Path, "/"), "/")
		for n := 1; n < len(parts); n++ {
			dirs = append(dirs, strings.Join(parts[:n], "/")+"/")
		}
	}
	slices.Sort(dirs)
	var b bytes.Buffer
	out := tar.NewWriter(&b)
	for _, dir := range slices.Compact(dirs) {
		header := &tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}
		if err := out.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("add %s to the image: %w", dir, err)
		}
	}
	for _, f := range i.Files {
		if err := addFile(out, f); err != nil {
			return nil, err
		}
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("end the image's layer: %w", err)
	}
	return b.Bytes(), nil
}

func addFile(out *tar.Writer, f File) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: strings.TrimPrefix(f.Path, "/"),
		Mode: 0o755, Size: int64(len(f.Data)), ModTime: time.Unix(0, 0),
	}
	if f.Target != "" {
		header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, f.Target, 0
	}
	if err := out.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s to the image: %w", f.Path, err)
	}
	if f.Target == "" {
		if _, err := out.Write(f.Data); err != nil {
			return fmt.Errorf("add %s to the image: %w", f.Path, err)
		}
	}
	return nil
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
