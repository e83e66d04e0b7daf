package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	"github.com/ebpf-tracer/ebpf-tracer/core/pluginhost"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/schema"
)

// Limits of the plugin that is put to the test.
const (
	// pluginMemory, in bytes, holds what the plugin tries besides: its temporary files
	// count too, and each process of its fork bomb.
	pluginMemory    = 256 << 20
	pluginProcesses = 48 // and threads
)

// emulated is a pace for a machine that is slow all over.
var emulated = pluginhost.Pace{
	StartTimeout: time.Minute, ConfigureTimeout: time.Minute, HealthInterval: time.Second,
	HealthTimeout: 20 * time.Second, SilentAfter: time.Minute,
}

// confine runs a plugin that means harm, of the directory plugins, and proves that on
// this kernel each attempt fails and that its limits are in force. It prints a line
// for each finding and gives how many are wrong.
func confine(out io.Writer, plugins string) (wrong int, err error) {
	// Of whoever packed them they were the files, and are root's here.
	err = filepath.WalkDir(plugins, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, 0, 0))
	})
	if err != nil {
		return 0, err
	}
	host, err := pluginhost.New(pluginhost.Options{Log: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelError})), Pace: emulated})
	if err != nil {
		return 0, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = errors.Join(err, host.Stop(ctx))
	}()
	catalog, err := pluginhost.NewCatalog([]string{plugins})
	if err != nil {
		return 0, err
	}
	entry, err := catalog.Find(config.Discoverer, "hostile")
	if err != nil {
		return 0, err
	}
	v, err := newVictims()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, v.close()) }()

	check := func(sentence string, ok bool, found any) {
		if ok {
			fmt.Fprintf(out, "ok    %s\n", sentence)
			return
		}
		wrong++
		fmt.Fprintf(out, "FAIL  %s: %v\n", sentence, found)
	}
	went, c, err := v.attack(host, entry)
	if err != nil {
		return wrong, err
	}
	fmt.Fprintf(out, "in force: %s\nnot in force: %s\n", strings.Join(c.Applied, "; "), strings.Join(c.NotApplied, "; "))
	told := map[string]bool{
		"grandchild": true, "environment": true, "open files": true, "user": true, "processes seen": true,
		"processes started": true, "fork bomb": true, "network namespace": true,
		"connect to its own socket": true, "read what it was granted": true,
	}
	var done []string
	for name, how := range went {
		if how == "done" && !told[name] {
			done = append(done, name)
		}
	}
	check("a hostile plugin fails at each attempt", len(done) == 0 && len(went) > 30, done)
	check("it reaches no abstract socket of the host, though it may connect", v.reached.Load() == 0, v.reached.Load())
	check("it connects to the socket that it was granted", went["connect to its own socket"] == "done" && v.allowed.Load() > 0, went["connect to its own socket"])
	check("it reads the directory that it was granted", went["read what it was granted"] == "done", went["read what it was granted"])
	_, written := os.Lstat("/dev/shm/hostile")
	check("it can't write to what is mounted below that", errors.Is(written, fs.ErrNotExist), written)
	started, err := strconv.Atoi(went["processes started"])
	check("pids.max ends its fork bomb", err == nil && started > 0 && started < pluginProcesses, fmt.Sprintf("%s started; %s; a grandchild: %s", went["processes started"], went["fork bomb"], went["grandchild"]))
	ended, err := v.hog(host, entry)
	if err != nil {
		return wrong, err
	}
	check("memory.max ends what takes too much", strings.Contains(ended, "more memory than it may have"), ended)
	return wrong, nil
}

// victims are what the plugin attacks.
type victims struct {
	dir       string
	name      string // of the abstract sockets
	listeners []io.Closer
	ended     sync.WaitGroup
	reached   atomic.Int64 // connections to what was not granted
	allowed   atomic.Int64 // and to what was
}

func newVictims() (*victims, error) {
	dir, err := os.MkdirTemp("", "ebpf-tracer-check-")
	if err != nil {
		return nil, err
	}
	v := &victims{dir: dir, name: filepath.Base(dir)}
	err = errors.Join(os.Chmod(dir, 0o755), v.accept("@"+v.name, &v.reached), v.accept(filepath.Join(dir, "allowed"), &v.allowed))
	datagrams, e := net.ListenPacket("unixgram", "@"+v.name+"-datagram")
	if err = errors.Join(err, e); err != nil {
		return nil, errors.Join(err, v.close())
	}
	v.listeners = append(v.listeners, datagrams)
	v.ended.Go(func() {
		for {
			if _, _, err := datagrams.ReadFrom(make([]byte, 64)); err != nil {
				return // closed
			}
			v.reached.Add(1)
		}
	})
	return v, nil
}

// accept counts connections to a unix socket that everybody may use.
func (v *victims) accept(address string, count *atomic.Int64) error {
	l, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	v.listeners = append(v.listeners, l)
	v.ended.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			count.Add(1)
			_ = c.Close() // it has been counted
		}
	})
	if !strings.HasPrefix(address, "/") {
		return nil
	}
	return os.Chmod(address, 0o666)
}

func (v *victims) close() error {
	var err error
	for _, l := range v.listeners {
		err = errors.Join(err, l.Close())
	}
	v.ended.Wait()
	return errors.Join(err, os.RemoveAll(v.dir))
}

// attack runs the plugin until it has told how its attempts went, and ends it.
func (v *victims) attack(host *pluginhost.Host, e pluginhost.Entry) (map[string]string, pluginhost.Confinement, error) {
	told := make(chan map[string]string, 16)
	d, err := v.run(host, e, map[string]any{
		"daemon": os.Getpid(), "outside": "/dev/shm", "victim": "/dev/log", "abstract": v.name, "datagram": v.name + "-datagram",
		"allowed": filepath.Join(v.dir, "allowed"), "shown": "/dev", "tcp": "127.0.0.1:1", "udp": "127.0.0.1:1", "bomb": 3 * pluginProcesses,
	}, told)
	if err != nil {
		return nil, pluginhost.Confinement{}, err
	}
	select {
	case went := <-told:
		c := d.Status().Confinement
		return went, c, stop(d)
	case <-time.After(3 * patience):
		return nil, pluginhost.Confinement{}, errors.Join(fmt.Errorf("the hostile plugin told nothing: %s: %s", d.Status().State, d.Status().LastError), stop(d))
	}
}

// hog runs the plugin so that it takes more memory than it may have, and gives what
// the host says of its end.
func (v *victims) hog(host *pluginhost.Host, e pluginhost.Entry) (string, error) {
	d, err := v.run(host, e, map[string]any{"daemon": os.Getpid(), "hog": 2 * pluginMemory}, make(chan map[string]string, 16))
	if err != nil {
		return "", err
	}
	for end := time.Now().Add(3 * patience); time.Now().Before(end) && d.Status().LastError == ""; {
		time.Sleep(20 * time.Millisecond)
	}
	ended := d.Status().LastError
	return ended, stop(d)
}

func (v *victims) run(host *pluginhost.Host, e pluginhost.Entry, conf map[string]any, told chan<- map[string]string) (*pluginhost.Discoverer, error) {
	raw, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	spec := pluginhost.Spec{
		Entry: e, Config: raw, Node: &protov1.Node{Name: "guest"}, Memory: pluginMemory, Processes: pluginProcesses,
		Grants: []config.Grant{{Opens: schema.Socket, Value: filepath.Join(v.dir, "allowed")}, {Opens: schema.Path, Value: "/dev"}},
	}
	return host.RunDiscoverer(context.Background(), spec, pluginhost.DiscovererHandler{
		Changes: func(changes []*protov1.InventoryChange) {
			for _, c := range changes {
				if c.GetContainer() != nil {
					select {
					case told <- c.GetContainer().GetLabels():
					default: // the first is looked at
					}
				}
			}
		},
		Lost: func(string) {},
	})
}

func stop(d *pluginhost.Discoverer) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return d.Stop(ctx)
}
