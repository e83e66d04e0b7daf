// Command testenv puts a real container runtime on the machine, to try the tracer by hand,
// and takes it off again:
//
//	testenv install
//	testenv servers
//	testenv RUNTIME up [-socket PATH] [-bridge]
//	testenv RUNTIME down
//
// RUNTIME is docker, containerd or containerd2, both with their CRI, crio or podman. up
// prints the socket's path on standard output. servers builds those that are not the
// distribution's, which up does too.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/ebpf-tracer/ebpf-tracer/test/env"
)

const usage = "usage: testenv install | testenv servers | testenv docker|containerd|containerd2|crio|podman up [-socket PATH] [-bridge] | testenv RUNTIME down"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if slices.Equal(args, []string{"install"}) {
		return env.Install(ctx)
	}
	if slices.Equal(args, []string{"servers"}) {
		return env.BuildServers(ctx, os.Stderr)
	}
	if len(args) < 2 || !slices.Contains([]string{"docker", "containerd", "containerd2", "crio", "podman"}, args[0]) {
		return fmt.Errorf("%s", usage)
	}
	switch runtime, verb := args[0], args[1]; verb {
	case "up":
		return up(ctx, runtime, args[2:])
	case "down":
		return env.Remove(ctx, runtime)
	}
	return fmt.Errorf("%s", usage)
}

func up(ctx context.Context, runtime string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	socket := flags.String("socket", "", "where to listen, instead of the environment's own `path`")
	bridge := flags.Bool("bridge", false, "give containers a network, in a network namespace of its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	options := []env.Option{env.WithName(runtime), env.WithSocket(*socket)}
	if *bridge {
		options = append(options, env.WithBridge())
	}
	at, try, err := start(ctx, runtime, options)
	if err != nil {
		return err
	}
	fmt.Println(at)
	fmt.Fprintf(os.Stderr, "try: %s\n", try)
	return nil
}

// start starts a runtime and returns where it listens and what to try.
func start(ctx context.Context, runtime string, options []env.Option) (socket, try string, err error) {
	switch runtime {
	case "docker":
		d, err := env.NewDocker(ctx, options...)
		if err != nil {
			return "", "", err
		}
		return d.Socket, fmt.Sprintf("%s run --rm %s echo hello", d.Command(ctx), env.BusyboxImage), nil
	case "crio":
		c, err := env.NewCRIO(ctx, options...)
		if err != nil {
			return "", "", err
		}
		return c.Socket, "any client of the CRI", nil
	case "podman":
		p, err := env.NewPodman(ctx, options...)
		if err != nil {
			return "", "", err
		}
		cmd := p.Command(ctx, "run", "--rm", env.BusyboxImage, "echo", "hello")
		return p.Socket, strings.Join(append(cmd.Env, cmd.String()), " "), nil
	case "containerd2":
		options = append(options, env.WithContainerd2())
	}
	c, err := env.NewContainerd(ctx, append(options, env.WithCRI())...)
	if err != nil {
		return "", "", err
	}
	return c.Socket, fmt.Sprintf("%s --rm %s an-id echo hello", c.Command(ctx, c.RunArgs()...), env.BusyboxImage), nil
}
