package env

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// Option changes how a daemon is started.
type Option func(*options)

type options struct {
	name   string
	socket string
	bridge bool
	args   []string

	cri         bool
	containerd2 bool
	defaultRoot bool
}

func collect(opts []Option) (o options) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// WithBridge gives containers a network: a bridge, packet rules and forwarding, all inside
// a network namespace that the daemon then has for itself. Containers reach one another
// and can be reached from that namespace, for instance [Docker.Netns]; the machine's own
// network is not touched. Of a CRI it is the pods that may then have a network of their
// own.
func WithBridge() Option { return func(o *options) { o.bridge = true } }

// WithCRI makes a containerd serve the CRI too, for [Containerd.CRI].
func WithCRI() Option { return func(o *options) { o.cri = true } }

// WithContainerd2 chooses a containerd of the second major version, which is built from
// its published Go module where that was not done before. That takes minutes.
func WithContainerd2() Option { return func(o *options) { o.containerd2 = true } }

// WithArgs gives the daemon further arguments, such as "--live-restore" to dockerd.
func WithArgs(args ...string) Option {
	return func(o *options) { o.args = append(o.args, args...) }
}

// WithSocket makes the daemon listen at another path, for instance where clients look
// for one by default. Nothing may be there yet; its directory must.
func WithSocket(path string) Option { return func(o *options) { o.socket = path } }

// WithName makes an environment that outlives this process, until Close or [Remove].
// There can be only one of a name at a time.
func WithName(name string) Option { return func(o *options) { o.name = name } }

// socket is where a daemon of the environment shall listen.
func (s *state) socket(wanted, name string) (string, error) {
	if wanted == "" {
		return s.path(name), nil
	}
	if _, err := os.Lstat(wanted); !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("listen at %s: something is there already", wanted)
	}
	return wanted, s.note(func(r *record) { r.Outside = append(r.Outside, wanted, wanted+".ttrpc") })
}
