package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/ebpf-tracer/ebpf-tracer/sdk/quiet"
)

// maxInspect bounds what is read of one answer of the inspector: an annotation of the
// largest size that Kubernetes takes is in it three times.
const maxInspect = 4 << 20

// inspector is a client of the HTTP service that CRI-O has on the same socket. It
// tells of a container from before its cgroup is made, when the CRI still denies it.
// A nil inspector knows nothing. It is safe for concurrent use.
type inspector struct {
	http    *http.Client
	timeout time.Duration
}

func newInspector(socket string, timeout time.Duration) *inspector {
	return &inspector{timeout: timeout, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return quiet.Dial(ctx, socket, timeout)
		},
		DisableCompression: true, MaxIdleConns: 2, IdleConnTimeout: time.Minute, ReadBufferSize: 4 << 10, WriteBufferSize: 1 << 10,
	}}}
}

func (i *inspector) close() {
	if i != nil {
		i.http.CloseIdleConnections()
	}
}

// daemonInfo is what CRI-O says of itself.
type daemonInfo struct {
	StorageDriver string `json:"storage_driver"`
	CgroupDriver  string `json:"cgroup_driver"`
}

func (i *inspector) info(ctx context.Context) (daemonInfo, error) {
	var in daemonInfo
	return in, i.get(ctx, "/info", &in)
}

// inspected is what CRI-O says of a container or of a sandbox's own.
type inspected struct {
	Image       string            `json:"image"`
	ImageRef    string            `json:"image_ref"`
	Created     int64             `json:"created_time"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Spec        map[string]string `json:"crio_annotations"` // of the OCI specification
	Sandbox     string            `json:"sandbox"`
	IPs         []string          `json:"ip_addresses"`
}

func (i *inspector) container(ctx context.Context, id string) (*inspected, error) {
	var in inspected
	if err := i.get(ctx, "/containers/"+url.PathEscape(id), &in); err != nil {
		return nil, err
	}
	return &in, nil
}

func (i *inspector) get(ctx context.Context, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://crio"+path, nil)
	if err != nil {
		return fmt.Errorf("ask CRI-O for %s: %w", path, err)
	}
	r, err := i.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask CRI-O for %s: %w", path, err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, maxInspect+1))
	switch {
	case err != nil:
		return fmt.Errorf("ask CRI-O for %s: %w", path, err)
	case r.StatusCode == http.StatusNotFound:
		return errNotFound
	case r.StatusCode != http.StatusOK:
		return fmt.Errorf("ask CRI-O for %s: it answers %s", path, r.Status)
	case len(body) > maxInspect:
		return fmt.Errorf("ask CRI-O for %s: the answer has more than %d MiB", path, maxInspect>>20)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read what CRI-O says to %s: %w", path, err)
	}
	return nil
}
