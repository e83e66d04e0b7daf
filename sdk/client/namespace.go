package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// Namespace is a Linux namespace that containers are in. Containers are those that
// share it.
type Namespace struct {
	ID   string // TYPE:INODE, as GetNamespace takes it
	Type string // pid, net, mnt, user, uts, ipc, cgroup, time
	*protov1.Namespace
}

func newNamespace(n *protov1.Namespace) *Namespace {
	r := n.GetRef()
	return &Namespace{ID: NamespaceID(r), Type: r.GetType(), Namespace: n}
}

// NamespaceID is how GetNamespace takes a namespace: TYPE:INODE.
func NamespaceID(r *protov1.NamespaceRef) string {
	return r.GetType() + ":" + strconv.FormatUint(r.GetInode(), 10)
}

// ListNamespaces lists the namespaces of one type that containers are in, or with ""
// those of all types, in the order of types and inodes.
func (c *Client) ListNamespaces(ctx context.Context, typ string) ([]*Namespace, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.ListNamespaces(ctx, &protov1.ListNamespacesRequest{Type: typ})
	if err != nil {
		return nil, c.explain(err)
	}
	var all []*Namespace
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, c.explain(err)
		}
		for _, part := range page.GetNamespaces() {
			n := newNamespace(part)
			if last := len(all) - 1; last >= 0 && all[last].ID == n.ID { // it came in parts
				all[last].Containers = append(all[last].Containers, part.GetContainers()...)
				continue
			}
			all = append(all, n)
		}
	}
}

// GetNamespace gives the namespace of an id: TYPE:INODE, TYPE:[INODE] as the links in
// /proc/PID/ns read, or the inode alone. The error is ErrNoNamespace when no container
// is known to be in it.
func (c *Client) GetNamespace(ctx context.Context, id string) (*Namespace, error) {
	typ, inode, err := parseNamespaceID(id)
	if err != nil {
		return nil, err
	}
	r, err := c.rpc.GetNamespace(ctx, &protov1.GetNamespaceRequest{Type: typ, Inode: inode})
	if err != nil {
		return nil, c.explain(err)
	}
	if !r.GetFound() {
		return nil, fmt.Errorf("namespace %s: %w", id, ErrNoNamespace)
	}
	return newNamespace(r.GetNamespace()), nil
}

func parseNamespaceID(id string) (typ string, inode uint64, err error) {
	number := id
	if before, after, ok := strings.Cut(id, ":"); ok {
		typ, number = before, after
		if inner, ok := strings.CutPrefix(number, "["); ok {
			number = strings.TrimSuffix(inner, "]")
		}
	}
	if inode, err = strconv.ParseUint(number, 10, 64); err != nil {
		return "", 0, fmt.Errorf("%q names no namespace: give TYPE:INODE, such as net:4026531840, or the inode alone", id)
	}
	return typ, inode, nil
}
