package env

import (
	"bytes"
	"fmt"
	"os"
	"runtime"

	"github.com/ebpf-tracer/ebpf-tracer/test/load"
	"golang.org/x/sys/unix"
)

// runcWrapName is the wrapper's file in an environment's directory.
const runcWrapName = "runc-wrap.sh"

// runc returns the runtime's command: the distribution's, or where root is not allowed
// what containers ask for, the wrapper around it.
func (s *state) runc() (string, error) {
	allowed, err := haveSysResource()
	if err != nil {
		return "", err
	}
	if allowed {
		return command("runc")
	}
	path := s.path(runcWrapName)
	if err := os.WriteFile(path, []byte(runcWrapScript), 0o755); err != nil {
		return "", fmt.Errorf("write the wrapper of runc: %w", err)
	}
	return path, nil
}

func haveSysResource() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("read the own capabilities: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0, nil
}

// images writes the archives of the images that every environment has.
func (s *state) images() ([]string, error) {
	noop, err := load.NoopELF(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	busybox, err := Busybox(noop)
	if err != nil {
		return nil, err
	}
	pause, err := load.PauseELF(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	var paths []string
	for i, image := range []Image{busybox, Noop(noop), Pause(pause)} {
		var archive bytes.Buffer
		if err := image.WriteArchive(&archive); err != nil {
			return nil, err
		}
		path := s.path(fmt.Sprintf("image%d.tar", i))
		if err := os.WriteFile(path, archive.Bytes(), 0o644); err != nil {
			return nil, fmt.Errorf("write an image: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}
