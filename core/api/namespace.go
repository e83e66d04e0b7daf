package api

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ebpf-tracer/ebpf-tracer/core/namespace"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
)

// maxNamespace is how large the answer about one namespace becomes, in bytes. It has
// room for more containers than the daemon knows, unless their ids are oddly long;
// what there is no room for is left out.
const maxNamespace = 12 << 20

func (t *tracer) ListNamespaces(r *protov1.ListNamespacesRequest, stream grpc.ServerStreamingServer[protov1.ListNamespacesResponse]) error {
	types, err := typesOf(r.GetType())
	if err != nil {
		return err
	}
	return namespacePages(t.source.Namespaces(types...), stream.Send)
}

func (t *tracer) GetNamespace(_ context.Context, r *protov1.GetNamespaceRequest) (*protov1.GetNamespaceResponse, error) {
	types, err := typesOf(r.GetType())
	if err != nil {
		return nil, err
	}
	for _, typ := range types {
		n := t.source.Namespace(namespace.ID{Type: typ, Inode: r.GetInode()})
		if n == nil {
			continue
		}
		out := &protov1.GetNamespaceResponse{Found: true}
		err := eachPart(n, maxNamespace, func(part *protov1.Namespace, _ int) error {
			if out.Namespace == nil {
				out.Namespace = part
			}
			return nil
		})
		return out, err
	}
	return &protov1.GetNamespaceResponse{}, nil
}

// typesOf are the types that a word means; "": all.
func typesOf(word string) ([]namespace.Type, error) {
	var types []namespace.Type
	for t := range namespace.Types {
		if word == "" || word == t.String() {
			types = append(types, t)
		}
	}
	if len(types) == 0 {
		return nil, status.Errorf(codes.InvalidArgument, "no type of namespace is named %q: there are %s",
			head(word), strings.Join(namespace.TypeNames(), ", "))
	}
	return types, nil
}

// namespacePages sends namespaces in pages of at most maxPage. One with many
// containers comes in parts, one after another.
func namespacePages(all []*protov1.Namespace, send func(*protov1.ListNamespacesResponse) error) error {
	page := &protov1.ListNamespacesResponse{}
	size := 0
	for _, n := range all {
		err := eachPart(n, maxPage/4, func(part *protov1.Namespace, n int) error {
			if len(page.Namespaces) > 0 && size+n > maxPage {
				if err := send(page); err != nil {
					return err
				}
				page, size = &protov1.ListNamespacesResponse{}, 0
			}
			page.Namespaces = append(page.Namespaces, part)
			size += n
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(page.Namespaces) == 0 {
		return nil
	}
	return send(page)
}

// eachPart gives a namespace, with its size in a message, in parts of at most so many
// bytes: each has its name, and some of its containers. The first has its maps.
func eachPart(n *protov1.Namespace, most int, give func(part *protov1.Namespace, size int) error) error {
	part := &protov1.Namespace{Ref: n.GetRef(), UidMap: n.GetUidMap(), GidMap: n.GetGidMap()}
	size := proto.Size(part) + tag
	for _, m := range n.GetContainers() {
		m = shownMember(m)
		one := proto.Size(m) + tag
		if len(part.Containers) > 0 && size+one > most {
			if err := give(part, size); err != nil {
				return err
			}
			part = &protov1.Namespace{Ref: n.GetRef()}
			size = proto.Size(part) + tag
		}
		part.Containers = append(part.Containers, m)
		size += one
	}
	return give(part, size)
}

// tag is what a message takes beyond itself inside of another, at most.
const tag = 8

// shownMember is a container with names that are not too long.
func shownMember(m *protov1.NamespaceMember) *protov1.NamespaceMember {
	c := m.GetContainer()
	return &protov1.NamespaceMember{
		Container: &protov1.ContainerRef{Id: head(c.GetId()), Scope: head(c.GetScope())},
		Name:      head(m.GetName()), Pid: m.GetPid(), NsPid: m.GetNsPid(),
	}
}
