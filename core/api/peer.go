package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// peerInfo is who is at the other end, by the kernel's word, at the time of the
// connect.
type peerInfo struct {
	credentials.CommonAuthInfo
	pid int32
	uid uint32
}

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "SO_PEERCRED" }

// peerCredentials takes a connection as it is and learns who is there.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	who, err := peerOf(conn)
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, who, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "SO_PEERCRED"}
}

func (c peerCredentials) Clone() credentials.TransportCredentials { return c }

func (peerCredentials) OverrideServerName(string) error { return nil }

// peerOf asks the kernel who is at the other end of a unix socket.
func peerOf(conn net.Conn) (peerInfo, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return peerInfo{}, fmt.Errorf("ask who is at the other end: not a unix socket: %T", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peerInfo{}, fmt.Errorf("ask who is at the other end: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, credErr); err != nil {
		return peerInfo{}, fmt.Errorf("ask who is at the other end: %w", err)
	}
	return peerInfo{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		pid:            cred.Pid, uid: cred.Uid,
	}, nil
}

// authorize lets root in, and whoever the daemon runs as.
func authorize(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return status.Error(codes.PermissionDenied, "the daemon can't tell who asks")
	}
	who, ok := p.AuthInfo.(peerInfo)
	if !ok {
		return status.Error(codes.PermissionDenied, "the daemon can't tell who asks")
	}
	own := uint32(os.Geteuid())
	switch {
	case who.uid == 0 || who.uid == own:
		return nil
	case own == 0:
		return status.Errorf(codes.PermissionDenied, "user id %d may not ask the daemon: run as root", who.uid)
	}
	return status.Errorf(codes.PermissionDenied, "user id %d may not ask the daemon: run as root or as user id %d", who.uid, own)
}

func authorizeCall(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := authorize(ctx); err != nil {
		return nil, err
	}
	return next(ctx, request)
}

func authorizeStream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := authorize(stream.Context()); err != nil {
		return err
	}
	return next(server, stream)
}
