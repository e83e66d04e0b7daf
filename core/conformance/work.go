package conformance

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/ebpf-tracer/ebpf-tracer/core/config"
	protov1 "github.com/ebpf-tracer/ebpf-tracer/sdk/proto/v1"
	"github.com/ebpf-tracer/ebpf-tracer/sdk/wire"
)

// work makes the checks of a plugin at work.
func (t *tester) work(ctx context.Context) {
	if t.entry.Manifest.Kind == config.Discoverer {
		t.check(ctx, "Detect tells in time whether its runtime is here", "look only whether the runtime is there, with a timeout of your own; a runtime that is not here is no error but present = false",
			func(ctx context.Context, c *check) { t.detect(ctx, c) })
	}
	t.check(ctx, "its stream keeps the contract, and Health answers meanwhile", "docs/writing-plugins.md says what a stream of this kind looks like",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, true); err != nil {
				c.failf("%v", err)
				return
			}
			s, err := t.open(ctx)
			if err != nil {
				c.failf("open the stream: %v", text(err))
				return
			}
			defer s.close()
			t.whileHealthy(ctx, c, func(ctx context.Context) {
				away, err := t.settle(ctx, s)
				switch {
				case err != nil:
					c.failf("%v", err)
				case away != "":
					c.notef("it says that it is degraded: %s", away)
				}
			})
			c.failAll(s.findings())
		})
	t.check(ctx, "a stream opened again begins anew, with a reset or the answer of a start", "begin each stream as if it were the first: the daemon opens another after an error, and one ends before the next begins",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, true); err != nil {
				c.failf("%v", err)
				return
			}
			for range 3 {
				s, err := t.open(ctx)
				if err != nil {
					c.failf("open the stream: %v", text(err))
					return
				}
				_, err = t.settle(ctx, s)
				s.close()
				if err != nil {
					c.failf("%v", err)
					return
				}
				c.failAll(s.findings())
			}
			// One that ends before it has begun.
			for range 3 {
				if s, err := t.open(ctx); err == nil {
					s.close()
				}
			}
			t.healthy(ctx, c, "streams that end at once")
		})
}

func (t *tester) detect(ctx context.Context, c *check) {
	if err := t.alive(ctx, true); err != nil {
		c.failf("%v", err)
		return
	}
	for range 2 {
		asking, cancel := context.WithTimeout(ctx, detectWithin)
		began := time.Now()
		r, err := protov1.NewDiscovererClient(t.probe.Conn()).Detect(asking, &protov1.DetectRequest{})
		cancel()
		if err != nil {
			c.failf("Detect: %v", text(err))
			return
		}
		if took := time.Since(began); took > detectPromptly {
			c.warnf("it took %s", took.Round(time.Millisecond))
		}
		if r.GetDetail() == "" {
			c.warnf("its answer has no detail: where the runtime was found, or what was looked for")
		}
		c.notef("present: %v (%s)", r.GetPresent(), r.GetDetail())
	}
}

// healthy checks that the process lives and answers after something.
func (t *tester) healthy(ctx context.Context, c *check, after string) {
	for i := 0; ; i++ {
		asking, cancel := context.WithTimeout(ctx, healthWithin)
		_, err := t.rpc().Health(asking, &protov1.HealthRequest{})
		cancel()
		if err == nil || ctx.Err() != nil {
			return
		}
		if died, how := t.died(err); died {
			c.failf("after %s the process ended: %s", after, how)
			return
		}
		if i+1 == healthMisses {
			c.failf("after %s Health does not answer: %v", after, text(err))
			return
		}
	}
}

// hostile makes the checks of a plugin that is treated ill.
func (t *tester) hostile(ctx context.Context) {
	t.check(ctx, "it lives on with what is unlikely, or of a later edition of the protocol", "ignore fields and alternatives that are not known, and take strings of any content and 32 KiB",
		func(ctx context.Context, c *check) {
			if err := t.alive(ctx, true); err != nil {
				c.failf("%v", err)
				return
			}
			s, err := t.open(ctx)
			if err != nil {
				c.failf("open the stream: %v", text(err))
				return
			}
			defer s.close()
			if _, err = t.settle(ctx, s); err == nil {
				for range 2 {
					if err = s.cause(s.hostile(ctx)); err != nil {
						break
					}
				}
			}
			if err != nil {
				c.failf("%v", err)
				return
			}
			if err := s.ended(ctx, 200*time.Millisecond); err != nil {
				c.failf("the stream ended: %v", text(err))
			}
			c.failAll(s.findings())
			t.healthy(ctx, c, "such messages")
		})
	t.check(ctx, "it lives on after calls that are garbage", "let the gRPC library answer: it refuses what it can't read",
		func(ctx context.Context, c *check) {
			for _, call := range []struct {
				what, method string
				body         []byte
			}{
				{"a message that is no protobuf", "/ebpftracer.v1.Plugin/Validate", []byte("\xff\xff\xff\xff garbage")},
				{"a message that ends in the middle", "/ebpftracer.v1.Plugin/Configure", []byte{0x0a, 0x7f, 1, 2}},
				{"a method that is not there", "/ebpftracer.v1.Plugin/Nothing", nil},
				{"a service that is not there", "/ebpftracer.v9.Nothing/Nothing", nil},
				{"a message over the limit", "/ebpftracer.v1.Plugin/Validate", make([]byte, wire.MaxMessage+1<<20)},
			} {
				if err := t.alive(ctx, true); err != nil {
					c.failf("%v", err)
					return
				}
				asking, cancel := context.WithTimeout(ctx, askWithin)
				var answer []byte
				err := t.probe.Conn().Invoke(asking, call.method, &call.body, &answer,
					grpc.ForceCodecV2(raw{}), grpc.MaxCallSendMsgSize(2*wire.MaxMessage))
				cancel()
				switch {
				case err == nil:
					c.failf("%s is answered as if it were right", call.what)
				case status.Code(err) == codes.DeadlineExceeded:
					c.failf("%s is not answered", call.what)
				}
				t.healthy(ctx, c, call.what)
			}
		})
	t.check(ctx, "it lives on after bytes on its socket that are no gRPC", "serve with a gRPC library, which ends such a connection and goes on with the others",
		func(ctx context.Context, c *check) {
			const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
			for what, bytes := range map[string]string{
				"nothing":                         "",
				"text":                            "GET / HTTP/1.1\r\n\r\n",
				"zeros":                           strings.Repeat("\x00", 1<<16),
				"a preface and garbage":           preface + strings.Repeat("\xff", 1<<12),
				"a frame of 16 MiB that is not":   preface + "\xff\xff\xff\x00\x01\x00\x00\x00\x01",
				"headers that can't be read":      preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" + "\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
				"half of a preface, and then end": preface[:10],
			} {
				if err := t.alive(ctx, true); err != nil {
					c.failf("%v", err)
					return
				}
				if err := t.throw(ctx, bytes); err != nil {
					c.warnf("%s: %v", what, err)
				}
				t.healthy(ctx, c, what)
			}
		})
}

// throw writes bytes on a connection of their own.
func (t *tester) throw(ctx context.Context, bytes string) error {
	conn, err := t.probe.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	// A connection that is closed, or not read any more, is what is expected.
	_, _ = io.WriteString(conn, bytes)
	if u, ok := conn.(*net.UnixConn); ok && bytes != "" {
		_ = u.CloseWrite()
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, net.ErrClosed) {
		return nil // still open at the deadline, or reset
	}
	return nil
}

// raw sends bytes as they are.
type raw struct{}

var _ encoding.CodecV2 = raw{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
