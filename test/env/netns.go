package env

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// cniPlugins is where the distribution's package puts the plugins of the CNI, and
// cniState where these note what they gave to whom, whatever they are told.
const (
	cniPlugins = "/usr/lib/cni"
	cniState   = "/var/lib/cni"
)

// netns is the path of the environment's own network namespace.
func (s *state) netns() string { return s.path("netns") }

// makeNetns makes a network namespace that lives on while its daemon is restarted.
func (s *state) makeNetns(ctx context.Context) error {
	if err := os.WriteFile(s.netns(), nil, 0o444); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	unshare, err := command("unshare")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, unshare, "--net="+s.netns(), "ip", "link", "set", "lo", "up")
	cmd.Env = commandEnv()
	_, err = output(cmd)
	return err
}

// inNetns is the command line that runs another in the environment's network namespace.
func (s *state) inNetns(argv []string) ([]string, error) {
	nsenter, err := command("nsenter")
	if err != nil {
		return nil, err
	}
	return append([]string{nsenter, "--net=" + s.netns(), "--"}, argv...), nil
}

// cniDir holds the one network that a CRI gives to pods.
func (s *state) cniDir() string { return s.path("cni") }

// cniNetwork is the network's name, which no other environment has.
func (s *state) cniNetwork() string { return "ebpf-tracer-" + filepath.Base(s.dir) }

// writeCNI describes the network of the pods: a bridge in the environment's network
// namespace, or none, and then only pods with the host's network can be run.
func (s *state) writeCNI(bridge bool) error {
	if err := os.MkdirAll(s.cniDir(), 0o755); err != nil {
		return fmt.Errorf("describe the network of pods: %w", err)
	}
	plugins := []any{map[string]any{"type": "loopback"}}
	if bridge {
		plugins = []any{
			map[string]any{
				"type": "bridge", "bridge": "pods", "isGateway": true, "ipMasq": false,
				"ipam": map[string]any{
					"type": "host-local", "dataDir": s.path("cni-addresses"),
					"ranges": []any{[]any{map[string]any{"subnet": "10.98.0.0/16"}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
			map[string]any{"type": "portmap", "capabilities": map[string]any{"portMappings": true}},
		}
	}
	text, err := json.Marshal(map[string]any{"cniVersion": "0.4.0", "name": s.cniNetwork(), "plugins": plugins})
	if err != nil {
		return fmt.Errorf("describe the network of pods: %w", err)
	}
	if err := os.WriteFile(filepath.Join(s.cniDir(), "10-pods.conflist"), text, 0o644); err != nil {
		return fmt.Errorf("describe the network of pods: %w", err)
	}
	return nil
}

// removeCNI removes what the CNI noted about the pods of this environment.
func (s *state) removeCNI(ids []string) error {
	errs := []error{
		removeGlob(filepath.Join(cniState, "*", s.cniNetwork())),
		removeGlob(filepath.Join(cniState, "*", s.cniNetwork()+"-*")),
	}
	for _, id := range ids { // some are of networks that the runtime itself describes
		errs = append(errs, removeGlob(filepath.Join(cniState, "*", "*-"+id+"-*")))
	}
	return errors.Join(errs...)
}

// netnsDir is where Podman binds the network namespaces of its containers, whatever it
// is told.
const netnsDir = "/run/netns"

// podmanNamespaces are the network namespaces of a Podman's containers.
func (s *state) podmanNamespaces() []string {
	var paths []string
	for _, file := range s.glob("podman", "root", "overlay-containers", "*", "userdata", "config.json") {
		var bundle struct {
			Linux struct {
				Namespaces []struct{ Path string }
			}
		}
		text, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(text, &bundle) != nil {
			continue // just being removed, or written
		}
		for _, n := range bundle.Linux.Namespaces {
			if strings.HasPrefix(n.Path, netnsDir+"/netns-") {
				paths = append(paths, n.Path)
			}
		}
	}
	return paths
}

// removeNamespaces removes network namespaces by the files that they are bound to.
func removeNamespaces(paths []string) error {
	for _, path := range paths {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // it is bound no more
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
	return removeFiles(paths)
}
